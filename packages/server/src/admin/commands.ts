/** The table of administration commands, by the name that they have on the control socket and in the security log. */
import { Check, Errors } from 'typebox/value'
import { badJson, quoted } from '../matrix-error.ts'
import type { AdminCommand, AdminDeps, Ran } from './command.ts'
import { TOKEN_COMMANDS } from './token-commands.ts'
import { USER_COMMANDS } from './user-commands.ts'

export const ADMIN_COMMANDS = { ...USER_COMMANDS, ...TOKEN_COMMANDS } as const satisfies Readonly<
  Record<string, AdminCommand>
>

type Commands = typeof ADMIN_COMMANDS
export type AdminCommandName = keyof Commands
export type AdminInput<Name extends AdminCommandName> = Parameters<Commands[Name]['run']>[1]
export type AdminOutput<Name extends AdminCommandName> = Awaited<ReturnType<Commands[Name]['run']>>['output']

/**
 * Validates the input of a command and runs it.
 *
 * @throws {MatrixError} for an unknown command, for another input than it takes, and what the command throws
 */
export async function runAdminCommand(deps: AdminDeps, name: string, input: unknown): Promise<Ran<unknown>> {
  const command: AdminCommand | undefined = Object.hasOwn(ADMIN_COMMANDS, name)
    ? ADMIN_COMMANDS[name as AdminCommandName]
    : undefined
  if (command === undefined) throw badJson(`There is no administration command ${quoted(name)}.`)
  if (!Check(command.input, input)) {
    const [finding] = Errors(command.input, input)
    throw badJson(`${name}: ${finding?.instancePath || 'the input'} ${finding?.message ?? 'is invalid'}.`)
  }
  return command.run(deps, input as never)
}
