/** The frame of administration commands: the flags that find the database, `--json`, and the call. */
import { Command } from 'commander'
import type { AdminCommandName, AdminInput, AdminOutput } from '../admin/commands.ts'
import type { Config } from '../config/config.ts'
import { addDatabaseOptions, configOf } from './config-options.ts'
import { printResult } from './output.ts'
import { runAdmin } from './run-admin.ts'

const COMMON_HELP = `
The server may be running. --json prints the result for programs. Exits with 1 if the command is refused.
`

export function adminCommand<Name extends AdminCommandName>(
  name: Name,
  definition: {
    readonly description: string
    /** Positional arguments, as commander takes them: `<NAME>`. */
    readonly arguments?: readonly (readonly [string, string])[]
    readonly options?: (command: Command) => Command
    readonly help: string
    readonly examples: readonly string[]
    readonly input: (
      args: readonly string[],
      command: Command,
      config: Config,
    ) => AdminInput<Name> | Promise<AdminInput<Name>>
    readonly print: (output: AdminOutput<Name>, config: Config) => string
  },
): Command {
  const { description, help, examples, options, input, print } = definition
  const command = new Command(name.split(' ').at(-1))
    .description(description)
    .option('--json', 'print JSON')
    .addHelpText(
      'after',
      `\n${help}${COMMON_HELP}\nExamples:\n${examples.map((it) => `  $ latchkey ${it}`).join('\n')}`,
    )
  for (const [argument, meaning] of definition.arguments ?? []) command.argument(argument, meaning)
  options?.(command)
  return addDatabaseOptions(command).action(async () => {
    const { config } = configOf(command)
    const output = await runAdmin(config, name, await input(command.processedArgs.flat(), command, config))
    const { json } = command.opts<{ json?: boolean }>()
    printResult(json, output, () => print(output, config))
  })
}
