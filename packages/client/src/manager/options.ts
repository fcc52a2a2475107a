/** What an app says when it opens a key manager, and what holds where it says nothing. */
import type { OnEvent } from '../events.ts'
import { type Budget, DEFAULT_BUDGET } from '../heal/heals.ts'
import { type OlmAccounts, OlmRefusal } from '../olm/olm-account.ts'
import { type Store, StoreError } from '../store/store.ts'
import type { AccountBox } from './account-box.ts'
import type { AccountRecord } from './records.ts'
import type { Settings } from './step.ts'
import { cryptoRandom, type Random } from './wire-ids.ts'

const DAY_MS = 86_400_000
const HOUR_MS = 3_600_000
const NEW_KEYS_PER_DAY = 500
const SESSIONS_PER_PEER = 8
const MAX_SESSIONS = 5_000

export type KeyManagerOptions = {
  /** Where everything is kept: one store for one device. */
  readonly store: Store
  /** The Olm implementation: `libolmAccounts(Olm, pickleKey)`. */
  readonly accounts: OlmAccounts
  readonly userId: string
  readonly deviceId: string
  /** A pickled account to take over when the store is empty; without it a new account is made. */
  readonly account?: string
  readonly onEvent?: OnEvent
  /** `heal` (default) mends drift, `report` only tells of it, `off` does not look. */
  readonly mode?: 'off' | 'report' | 'heal'
  /** How many heals a day, and the pause between them. */
  readonly budget?: Partial<Budget>
  readonly limits?: {
    /** New one-time keys in 24 hours, whatever the server says. Default 500. */
    readonly newKeysPerDay?: number
    /** Sessions that are kept with one other device. Default 8. */
    readonly sessionsPerPeer?: number
    /** Sessions in all. Default 5 000. */
    readonly sessions?: number
  }
  readonly fallback?: {
    /**
     * The age at which the fallback key is renewed although nobody used it, ms. Default 7 days. One that was used is
     * renewed after a day at the earliest, however often the server says so.
     */
    readonly rotateAfterMs?: number
    /**
     * How long the private half of a former fallback key is kept, ms, counted from when the server took the new one.
     * Default 1 hour, the specification's advice: a first message that was made with the former key and is on its way for
     * longer than that is lost. Longer serves such messages (MSC4081 proposes 30 days); its cost is forward secrecy: who
     * takes the store can for so long read the first messages of every session made with that key, and renewals wait for
     * it, save that of a dead key on the server.
     */
    readonly graceMs?: number
  }
  /** The clock, ms since the epoch. */
  readonly now?: () => number
  /** Cryptographically random bytes. */
  readonly random?: Random
}

/** The settings, complete. */
export function settingsOf({ mode, budget, limits, fallback, now, random }: KeyManagerOptions): Settings {
  return {
    mode: mode ?? 'heal',
    budget: {
      healsPerDay: budget?.healsPerDay ?? DEFAULT_BUDGET.healsPerDay,
      pauseMs: budget?.pauseMs ?? DEFAULT_BUDGET.pauseMs,
    },
    newKeysPerDay: limits?.newKeysPerDay ?? NEW_KEYS_PER_DAY,
    sessionsPerPeer: limits?.sessionsPerPeer ?? SESSIONS_PER_PEER,
    sessions: limits?.sessions ?? MAX_SESSIONS,
    fallbackRotateAfterMs: fallback?.rotateAfterMs ?? 7 * DAY_MS,
    fallbackGraceMs: fallback?.graceMs ?? HOUR_MS,
    now: now ?? Date.now,
    random: random ?? cryptoRandom,
  }
}

/** What is stored of a new account, or of one that is taken over. */
export function newAccount({
  accounts,
  userId,
  deviceId,
  account: pickle,
  now,
}: KeyManagerOptions): AccountRecord {
  const account = pickle === undefined ? accounts.create() : accounts.unpickle(pickle)
  try {
    const { identityKeys, maxOneTimeKeys } = account
    return {
      userId,
      deviceId,
      curve25519: identityKeys.curve25519,
      ed25519: identityKeys.ed25519,
      pickle: account.pickle(),
      slots: maxOneTimeKeys,
      ...(pickle !== undefined && {
        imported: { at: (now ?? Date.now)(), available: undefined, held: 0 },
      }),
    }
  } finally {
    account.free()
  }
}

/** @throws {StoreError} when the store is another device's. */
export function requireSameDevice(account: AccountRecord, userId: string, deviceId: string): void {
  if (account.userId === userId && account.deviceId === deviceId) return
  throw new StoreError(
    'foreign',
    `the store is that of ${account.userId} ${account.deviceId}, not of ${userId} ${deviceId}. Give each device a store of its own.`,
  )
}

/** @throws {StoreError} when the Olm implementation cannot read the account: now, not at the first message. */
export function requireReadable(box: AccountBox, { pickle }: AccountRecord): void {
  try {
    box.of(pickle)
  } catch (error) {
    if (!(error instanceof OlmRefusal)) throw error
    throw new StoreError(
      'unreadable',
      `the account in the store cannot be opened (${error.message}). Give the pickle key that it was stored with.`,
      { cause: error },
    )
  }
}
