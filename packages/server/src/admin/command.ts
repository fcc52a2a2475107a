/**
 * An administration command: its input, and what it does with the store. It runs in the server that has the embedded
 * database open, or in the process of the command if no server runs or the database is PostgreSQL; both run this code.
 */
import type { Static, TSchema } from 'typebox'
import type { Passwords } from '../accounts/passwords.ts'
import type { AccountStore } from '../accounts/port.ts'
import type { DeviceStore } from '../devices/port.ts'
import type { AdminStore } from './port.ts'

export type AdminDeps = {
  readonly accounts: AccountStore
  readonly devices: Pick<DeviceStore, 'list'>
  readonly admin: AdminStore
  readonly passwords: Passwords
  readonly serverName: string
  /** In characters. */
  readonly passwordMinLength: number
  readonly now: () => number
}

export type Ran<Output> = {
  readonly output: Output
  /**
   * The account, devices or token that the command changed, for the security log; never a secret. Absent if nothing
   * changed.
   */
  readonly changed?: string
}

export type AdminCommand<Input = never, Output = unknown> = {
  readonly input: TSchema
  /** @throws {MatrixError} for the operator. */
  readonly run: (deps: AdminDeps, input: Input) => Promise<Ran<Output>>
}

/** Infers the types of a command from its schema and its function. */
export function adminCommand<const Schema extends TSchema, Output>(definition: {
  readonly input: Schema
  readonly run: AdminCommand<Static<Schema>, Output>['run']
}): AdminCommand<Static<Schema>, Output> {
  return definition
}
