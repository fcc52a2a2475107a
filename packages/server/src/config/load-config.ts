/**
 * Combines flags, variables and the file into one validated Config. Flags take precedence over variables, variables
 * over the file, the file over defaults. Reports all problems at once.
 */
import { readFileSync } from 'node:fs'
import { BlockList, isIP } from 'node:net'
import { basename, dirname, resolve } from 'node:path'
import { quoted } from '../matrix-error.ts'
import type { BucketRate } from '../lib/token-bucket.ts'
import { type Config, type RateLimits, usesPostgres } from './config.ts'
import { ConfigError } from './config-error.ts'
import { didYouMean } from './did-you-mean.ts'
import {
  ALL_KEYS,
  CONFIG_FILE,
  GENERAL_KEYS,
  type Key,
  POOL_KEYS,
  RATE_KEYS,
  RATES_ENABLED,
  SIZE_KEYS,
} from './keys.ts'
import { readYaml, type YamlFile } from './read-yaml.ts'
import { withoutServiceVariables } from './service-variables.ts'

export type Sources = {
  /** By name, for example `--port`. */
  readonly flags: ReadonlyMap<string, string>
  readonly environment: Readonly<Record<string, string | undefined>>
}

/**
 * A key with its effective value and its source: `--port`, `LATCHKEY_PORT`, `latchkey.yaml:3`; undefined by default.
 */
export type Setting = { readonly key: Key<unknown>; readonly value: unknown; readonly source?: string }

export type LoadedConfig = { readonly config: Config; readonly settings: readonly Setting[] }

const PREFIX = 'LATCHKEY_'

/**
 * @throws {ConfigError} with all problems
 *
 * @example
 * const { config } = loadConfig({ flags: new Map([['--port', '8123']]), environment: process.env })
 */
export function loadConfig({ flags, environment: everything }: Sources): LoadedConfig {
  const environment = withoutServiceVariables(everything)
  const problems: string[] = unknownVariables(environment)
  const file = flags.get(CONFIG_FILE.flag.name) ?? given(environment[CONFIG_FILE.variable])
  const yaml = file === undefined ? { entries: new Map(), problems: [] } : readFile(file)
  problems.push(...yaml.problems)
  const settings = ALL_KEYS.map((key) => {
    const found = find(key, flags, environment, yaml, file)
    if (found === undefined) return { key, value: key.default }
    const value = key.kind.parse(found.text)
    if (value === undefined)
      problems.push(
        `${key.path} (from ${found.source}) must be ${key.kind.expects}${key.kind.secret ? '' : `, not ${quoted(found.text)}`}.`,
      )
    return { key, value: inFile(key, found, file) ?? value, source: found.source }
  })
  if (problems.length > 0) throw new ConfigError(problems)
  const config = build(new Map(settings.map(({ key, value }) => [key, value])))
  requireConfirmation(config, settings)
  requirePostgresForWorkers(config, settings)
  return { config, settings }
}

type Found = { readonly text: string; readonly source: string; readonly line?: number }

function find(
  key: Key<unknown>,
  flags: Sources['flags'],
  environment: Sources['environment'],
  yaml: YamlFile,
  file: string | undefined,
): Found | undefined {
  const flag = key.flag && flags.get(key.flag.name)
  if (key.flag !== undefined && flag !== undefined) return { text: flag, source: key.flag.name }
  const variable = given(environment[key.variable])
  if (variable !== undefined) return { text: variable, source: key.variable }
  const entry = yaml.entries.get(key.path)
  if (entry === undefined) return undefined
  return { text: entry.text, source: `${basename(file ?? '')}:${entry.line}`, line: entry.line }
}

/** A path in a file is relative to that file. */
function inFile(key: Key<unknown>, { text, line }: Found, file: string | undefined): string | undefined {
  const { dataDir, fenceDir, securityLog } = GENERAL_KEYS
  const isPath = [dataDir.path, fenceDir.path, securityLog.path].includes(key.path)
  const isSwitch = key.path === securityLog.path && ['on', 'off'].includes(text)
  if (!isPath || isSwitch || line === undefined || file === undefined) return undefined
  return resolve(dirname(file), text)
}

/** An empty variable is treated as unset: compose files and shells cannot always unset one. */
function given(value: string | undefined): string | undefined {
  return value === '' ? undefined : value
}

function unknownVariables(environment: Sources['environment']): string[] {
  const known = [CONFIG_FILE.variable, ...ALL_KEYS.map(({ variable }) => variable)]
  return Object.keys(environment)
    .filter((name) => name.startsWith(PREFIX) && !known.includes(name))
    .map((name) => `${quoted(name)} (from the environment) is an unknown variable.${didYouMean(name, known)}`)
}

function readFile(file: string): YamlFile {
  let source: string
  try {
    source = readFileSync(file, 'utf8')
  } catch (error) {
    const code = error instanceof Error && 'code' in error ? String(error.code) : String(error)
    const reason = code === 'ENOENT' ? 'it does not exist' : code
    return { entries: new Map(), problems: [`${CONFIG_FILE.flag.name} ${file} cannot be read: ${reason}.`] }
  }
  const paths = ALL_KEYS.map(({ path }) => path)
  return readYaml(source, basename(file), paths)
}

const UNLIMITED_DAYS = {
  keysPerDeviceAndDay: 0,
  keysPerUserAndDay: 0,
  keyBytesPerUserAndDay: 0,
  healsPerDeviceAndDay: 0,
}

type Values = ReadonlyMap<Key<unknown>, unknown>

/** The casts are safe: `Keys` lists every member of Config, and each key's kind returns that member's type. */
function build(values: Values): Config {
  const limited = values.get(RATES_ENABLED) === true
  const pools = group(POOL_KEYS, values) as Config['pools']
  return {
    ...(group(GENERAL_KEYS, values) as Omit<Config, 'pools' | 'rates' | 'sizes'>),
    pools: limited ? pools : { ...pools, ...UNLIMITED_DAYS },
    ...(limited && { rates: rateLimits(values) }),
    sizes: group(SIZE_KEYS, values) as Config['sizes'],
  }
}

function rateLimits(values: Values): RateLimits {
  const rates = Object.entries(RATE_KEYS).map(([name, keys]) => [name, group(keys, values) as BucketRate])
  return Object.fromEntries(rates) as RateLimits
}

function group(keys: Readonly<Record<string, Key<unknown>>>, values: Values): object {
  const members = Object.entries(keys).map(([name, key]) => [name, values.get(key)] as const)
  return Object.fromEntries(members.filter(([, value]) => value !== undefined))
}

function requireConfirmation(config: Config, settings: readonly Setting[]): void {
  if (config.registration !== 'open' || config.openRegistrationConfirmed || isLoopback(config.host)) return
  const { path, flag } = GENERAL_KEYS.openRegistrationConfirmed
  const source = settings.find(({ key }) => key === GENERAL_KEYS.registration)?.source
  throw new ConfigError([
    `registration (from ${source}) is open, and host ${config.host} is reachable from other machines: anyone could create accounts. ` +
      `Use registration: token, or confirm with ${flag?.name} (${path}: on).`,
  ])
}

/** Only one process can use the embedded database. */
function requirePostgresForWorkers(config: Config, settings: readonly Setting[]): void {
  if (config.workers === 1 || usesPostgres(config)) return
  const { path } = GENERAL_KEYS.workers
  const source = settings.find(({ key }) => key === GENERAL_KEYS.workers)?.source
  throw new ConfigError([
    `${path} (from ${source}) is ${config.workers}, but the embedded database supports one process. ` +
      `Set a PostgreSQL database with ${GENERAL_KEYS.database.flag?.name} (or ${GENERAL_KEYS.database.variable}), or set ${path} to 1.`,
  ])
}

const LOOPBACK = new BlockList()
LOOPBACK.addSubnet('127.0.0.0', 8, 'ipv4')
LOOPBACK.addAddress('::1', 'ipv6')

function isLoopback(host: string): boolean {
  const family = isIP(host)
  return family === 0
    ? host.toLowerCase() === 'localhost'
    : LOOPBACK.check(host, family === 6 ? 'ipv6' : 'ipv4')
}
