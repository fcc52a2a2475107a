/**
 * Storage for the administration commands, which act for the operator and prove no session. Every operation is one
 * transaction, durable before its promise resolves; it wakes the syncs that it concerns, on every process.
 */
import type { UserId } from '@latchkey/protocol'
import type { Choice } from '../devices/remove.ts'
import type { UserRef } from '../session.ts'

export type UserEntry = {
  readonly userRef: UserRef
  readonly userId: UserId
  readonly createdTs: number
  /** Undefined: not locked. */
  readonly lockedTs: number | undefined
  /** Undefined: not deactivated. */
  readonly deactivatedTs: number | undefined
  readonly devices: number
}

export type RegistrationTokenEntry = {
  readonly tokenHash: string
  readonly uses: number
  /** Undefined: no limit. */
  readonly usesAllowed: number | undefined
  /** Undefined: never. */
  readonly expiresTs: number | undefined
  readonly createdTs: number
}

/** The entries whose names are greater than `after`, in the order of their code points. */
export type Page = { readonly after: string; readonly limit: number }

export interface AdminStore {
  users(page: Page): Promise<readonly UserEntry[]>
  user(userId: UserId): Promise<UserEntry | undefined>
  /** Locks a user, or unlocks them if `lockedTs` is undefined (accounts/locked-users.ts). False: nothing to change. */
  setLocked(user: UserRef, lockedTs: number | undefined): Promise<boolean>
  /** Removes devices (devices/remove.ts). Resolves with their number. */
  removeDevices(user: UserRef, choice: Choice, now: number): Promise<number>
  /** Sets a password, and removes all devices if `endSessions`. Resolves with the number of removed devices. */
  resetPassword(change: {
    readonly user: UserRef
    readonly passwordHash: string
    readonly endSessions: boolean
    readonly now: number
  }): Promise<number>
  registrationTokens(page: Page): Promise<readonly RegistrationTokenEntry[]>
  /** Deletes the tokens whose hash begins with `prefix`. Resolves with their hashes. */
  revokeRegistrationTokens(prefix: string): Promise<readonly string[]>
}
