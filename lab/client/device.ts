/**
 * What every client of the lab looks like from outside, whatever it runs on, and with or without the library. A round is
 * what a client does again and again: one sync, and what follows from it.
 */
import type { ClientEvent, HealRecord } from '@latchkey/client'
import type { AnyJson, ClaimedKey } from '@latchkey/testing/matrix-session.ts'
import type { Peer } from '@latchkey/testing/olm-device.ts'
import type { FaultyNetwork } from './network.ts'

/** A message that came and could not be read. */
export type Unreadable = {
  readonly sender: string
  /** Why, as far as the client can tell its user; undefined: it cannot. */
  readonly cause: string | undefined
}

export interface LabDevice extends Peer {
  readonly network: FaultyNetwork
  /** Never throws for a lost connection; other refusals are what clients make of them: nothing. */
  round(): Promise<void>
  /** Texts in the order in which they were read, those that were read twice twice. */
  readonly read: readonly string[]
  readonly unreadable: readonly Unreadable[]
  /** Why the device, or its predecessor under the same user, was given up, where it was. */
  readonly deadBecause?: string | undefined
  /** The public halves of the private keys that it really has, used-up ones excluded. */
  held(): Promise<ReadonlySet<string>>
  /** A message with this key was read: where nothing else tells, that is when a private key goes. */
  noteUsed?(key: ClaimedKey): void
  /** The app has handled a message of this ID, in an earlier process. */
  noteHandled?(id: string): void
  /** Asks the server what it would issue for this device; past the network's faults. */
  pool(): Promise<PoolContents>
  /** What the library says that it healed; undefined without it. */
  heals(): Promise<Heals | undefined>
  close(): Promise<void>
}

export type Heals = {
  /** As its events told. */
  readonly told: readonly ClientEvent[]
  /** As it remembers. */
  readonly history: readonly HealRecord[]
}

/** A device on a raw libolm account: a naive bot, or one with the library. */
export interface LibolmDevice extends LabDevice {
  /** The process ends without a word, and is started anew on what was saved. */
  restart(): Promise<Start>
  /** What a backup of its disk holds. */
  backUp(): Promise<Backup>
  /** The disk is what it was; the process starts anew on it. */
  restore(backup: Backup): Promise<Start>
  /** The disk is empty. */
  wipe(): Promise<Start>
  /** Bytes of what is saved are changed; then as `restart`. */
  damage(): Promise<Start>
  /** A second process on the same disk. */
  second(): Promise<LibolmDevice>
  /** One sync, its answer not yet acted upon; `take` acts upon it. */
  sync(): Promise<PendingSync>
  take(sync: PendingSync): Promise<void>
}

/** How a start went: `error` is what an operator is told instead of a device that runs. */
export type Start = { readonly error?: string }

/** Opaque: each kind of device has its own. */
export type Backup = { readonly content: unknown }
export type PendingSync = { readonly answer: AnyJson; readonly begun: unknown }

export type PoolContents = {
  /** base64url SHA-256 of every key that may be issued, one-time and fallback. */
  readonly issuable: readonly string[]
  /** How many one-time keys are available. */
  readonly count: number
}

/** `GET dev.latchkey/keys/pool` (extensions.md). */
export const POOL = '/unstable/dev.latchkey/keys/pool'

type PoolAnswer = {
  readonly algorithms: Readonly<
    Record<
      string,
      { readonly available: readonly PoolKey[]; readonly fallback?: PoolKey | undefined } | undefined
    >
  >
}

type PoolKey = { readonly key_hash: string }

export function poolContents(answer: PoolAnswer): PoolContents {
  const { available = [], fallback } = answer.algorithms['signed_curve25519'] ?? {}
  const issuable = [...available, ...(fallback ? [fallback] : [])].map((key) => key.key_hash)
  return { issuable, count: available.length }
}
