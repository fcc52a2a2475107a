/** Options of `KeyManager.open`, their defaults, and the checks of an opened account. */
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

/** Options of `KeyManager.open`. Required: `store`, `accounts`, `userId`, `deviceId`. */
export type KeyManagerOptions = {
  /** Where everything is kept: one store per device. */
  readonly store: Store
  /** The Olm implementation: `libolmAccounts(Olm, pickleKey)`. */
  readonly accounts: OlmAccounts
  readonly userId: string
  readonly deviceId: string
  /** A pickled account to import into an empty store. Default: a new account. */
  readonly account?: string
  readonly onEvent?: OnEvent
  /** `heal` (default) repairs drift, `report` only emits events, `off` does not compare. */
  readonly mode?: 'off' | 'report' | 'heal'
  /** Heals per day, and the pause between them. */
  readonly budget?: Partial<Budget>
  readonly limits?: {
    /** New one-time keys in 24 hours, regardless of the server's counts. Default 500. */
    readonly newKeysPerDay?: number
    /** Sessions kept per other device. Default 8. */
    readonly sessionsPerPeer?: number
    /** Sessions kept in total. Default 5 000. */
    readonly sessions?: number
  }
  readonly fallback?: {
    /**
     * Age at which an unused fallback key is rotated, ms. Default 7 days. A used one is rotated after one day at the
     * earliest, however often the server reports its use.
     */
    readonly rotateAfterMs?: number
    /**
     * How long the private half of a former fallback key is kept after the server accepted the new one, ms. Default 1
     * hour, as the specification advises; a first message that uses the former key and takes longer is lost. A longer
     * time serves such messages (MSC4081 proposes 30 days) at the cost of forward secrecy: anyone who obtains the store
     * can read the first messages of every session made with that key for that long. Rotation also waits for it, except
     * when the server has a fallback key without a private half.
     */
    readonly graceMs?: number
  }
  /** The clock, ms since the epoch. */
  readonly now?: () => number
  /** Source of cryptographically random bytes. */
  readonly random?: Random
}

/** The settings with defaults applied. */
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

/** The record of a new or imported account. */
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

/** @throws {StoreError} when the store belongs to another device */
export function requireSameDevice(account: AccountRecord, userId: string, deviceId: string): void {
  if (account.userId === userId && account.deviceId === deviceId) return
  throw new StoreError(
    'foreign',
    `the store belongs to ${account.userId} ${account.deviceId}, not to ${userId} ${deviceId}. ` +
      'Use one store per device.',
  )
}

/** @throws {StoreError} when the Olm implementation cannot unpickle the account; better now than at a message */
export function requireReadable(box: AccountBox, { pickle }: AccountRecord): void {
  try {
    box.of(pickle)
  } catch (error) {
    if (!(error instanceof OlmRefusal)) throw error
    throw new StoreError(
      'unreadable',
      `the account in the store cannot be opened (${error.message}). Use the pickle key that it was stored with.`,
      { cause: error },
    )
  }
}
