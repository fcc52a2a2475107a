/** The table of administration commands, by the name that they have on the control socket and in the security log. */
import { Type } from 'typebox'
import { Check, Errors } from 'typebox/value'
import { registerAccount, requireFreeName } from '../accounts/register-account.ts'
import { createRegistrationToken, registrationTokenId } from '../accounts/registration-token.ts'
import { badJson, quoted } from '../matrix-error.ts'
import { adminCommand, type AdminCommand, type AdminDeps, type Ran } from './command.ts'
import { localpartOf } from './named-user.ts'

const Name = Type.String({ maxLength: 255 })
const Whole = Type.Integer({ minimum: 0 })

export const ADMIN_COMMANDS = {
  /** The ID that a new account of this name would have; refuses a name that is taken, ahead of the password prompt. */
  'user free-name': adminCommand({
    input: Type.Object({ name: Name }),
    run: async (deps, { name }) => ({
      output: { userId: await requireFreeName(deps, localpartOf(deps, name)) },
    }),
  }),
  'user add': adminCommand({
    input: Type.Object({ name: Name, password: Type.String() }),
    async run(deps, { name, password }) {
      const { userId } = await registerAccount(deps, { localpart: localpartOf(deps, name), password })
      return { output: { userId }, changed: userId }
    },
  }),
  'registration-token create': adminCommand({
    input: Type.Object({ usesAllowed: Type.Optional(Whole), expiresTs: Type.Optional(Whole) }),
    async run(deps, limits) {
      const token = await createRegistrationToken(deps, limits)
      return { output: { token }, changed: registrationTokenId(token) }
    },
  }),
} as const satisfies Readonly<Record<string, AdminCommand>>

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
