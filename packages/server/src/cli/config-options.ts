/** Adds flags from the table of configuration keys to a command, and loads the configuration from them. */
import { type Command, Option } from 'commander'
import { ALL_KEYS, CONFIG_FILE, type Flag, type Key } from '../config/keys.ts'
import { type LoadedConfig, loadConfig } from '../config/load-config.ts'
import { witnessPlaces } from '../config/witness-places.ts'

/** Adds `--config` and the keys' flags: all of them, or only those listed. */
export function addConfigOptions(command: Command, only?: readonly string[]): Command {
  for (const key of ALL_KEYS) {
    const { flag } = key
    if (flag === undefined || (only !== undefined && !only.includes(flag.name))) continue
    command.addOption(new Option(usage(flag), describe(key)))
  }
  return command.addOption(
    new Option(usage(CONFIG_FILE.flag), `a YAML file with settings (${CONFIG_FILE.variable})`),
  )
}

/** Adds the flags with which an administration command finds a database. */
export function addDatabaseOptions(command: Command): Command {
  return addConfigOptions(command, ['--data', '--database', '--server-name'])
}

/** @throws {ConfigError} */
export function configOf(command: Command): LoadedConfig {
  const given = command.opts<Record<string, string | boolean>>()
  const flags = new Map<string, string>()
  for (const option of command.options) {
    const value = given[option.attributeName()]
    if (value !== undefined && option.long) flags.set(option.long, value === true ? 'on' : String(value))
  }
  const loaded = loadConfig({ flags, environment: process.env })
  return { ...loaded, config: { ...loaded.config, witnessPlaces: witnessPlaces(loaded.config, process.env) } }
}

function usage({ name, value }: Flag): string {
  return value === undefined ? name : `${name} <${value}>`
}

function describe({ kind, meaning, variable, default: value }: Key<unknown>): string {
  const standard = value === undefined ? '' : `default ${kind.format(value)}; `
  return `${meaning.replaceAll('`', '')} (${standard}${variable})`
}
