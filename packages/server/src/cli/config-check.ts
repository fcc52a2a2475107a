/** `latchkey config check`: the configuration that would hold, or everything that is wrong with it. */
import { Command } from 'commander'
import { printConfig } from '../config/print-config.ts'
import { addConfigOptions, configOf } from './config-options.ts'

const HELP = `
Prints the whole configuration as a YAML file that can be used as one. Values that were set say where:
a flag wins over its variable, that over the file, that over the default.

Examples:
  $ latchkey config check --config latchkey.yaml
  $ latchkey config check > latchkey.yaml        every key with its default`

export function configCheckCommand(): Command {
  const command = new Command('check')
    .description('Print the configuration that would hold, or what is wrong with it.')
    .addHelpText('after', HELP)
  return addConfigOptions(command).action(() => {
    process.stdout.write(printConfig(configOf(command)))
  })
}
