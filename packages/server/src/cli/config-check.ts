/** `latchkey config check`: prints the effective configuration, or everything that is wrong with it. */
import { Command } from 'commander'
import { printConfig } from '../config/print-config.ts'
import { addConfigOptions, configOf } from './config-options.ts'

const HELP = `
Prints the complete configuration as a valid YAML file, with the source of each value that was set.
Flags take precedence over variables, variables over the file, the file over defaults.

Examples:
  $ latchkey config check --config latchkey.yaml
  $ latchkey config check > latchkey.yaml        all keys with their defaults`

export function configCheckCommand(): Command {
  const command = new Command('check')
    .description('Print the effective configuration, or what is wrong with it.')
    .addHelpText('after', HELP)
  return addConfigOptions(command).action(() => {
    process.stdout.write(printConfig(configOf(command)))
  })
}
