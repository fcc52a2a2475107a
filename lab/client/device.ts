/**
 * The common interface of the lab's clients, with and without the library. A round is one sync and the requests that
 * result from it.
 */
import type { ClientEvent, HealRecord } from '@latchkey/client'
import type { AnyJson, ClaimedKey } from '@latchkey/testing/matrix-session.ts'
import type { Peer } from '@latchkey/testing/olm-device.ts'
import type { FaultyNetwork } from './network.ts'

/** A received message that the client could not decrypt. */
export type Unreadable = {
  readonly sender: string
  /** The cause that the client can show to its user; undefined if it has none. */
  readonly cause: string | undefined
}

export interface LabDevice extends Peer {
  readonly network: FaultyNetwork
  /** Does not throw for a lost connection; other errors are ignored, as clients do. */
  round(): Promise<void>
  /** Decrypted texts in order; a message decrypted twice appears twice. */
  readonly read: readonly string[]
  readonly unreadable: readonly Unreadable[]
  /** Why the device, or its predecessor of the same user, was abandoned, if it was. */
  readonly unusableBecause?: string | undefined
  /** Public halves of the private keys that the device actually has, without used ones. */
  held(): Promise<ReadonlySet<string>>
  /** Reports a decrypted message with this key, for devices that cannot observe the removal of its private half. */
  noteUsed?(key: ClaimedKey): void
  /** Reports a message that the app handled in an earlier process. */
  noteHandled?(id: string): void
  /** Keys that the server would issue for this device, requested without the network's faults. */
  pool(): Promise<PoolContents>
  /** Heals that the library reports; undefined without the library. */
  heals(): Promise<Heals | undefined>
  close(): Promise<void>
}

export type Heals = {
  /** Events that the library emitted. */
  readonly events: readonly ClientEvent[]
  /** The library's heal history. */
  readonly history: readonly HealRecord[]
}

/** A device on a raw libolm account: a naive bot, or a bot with the library. */
export interface LibolmDevice extends LabDevice {
  /** The process crashes and restarts from its saved state. */
  restart(): Promise<Start>
  /** Returns a backup of its disk. */
  backUp(): Promise<Backup>
  /** Restores the disk from a backup and restarts the process. */
  restore(backup: Backup): Promise<Start>
  /** Empties the disk and restarts the process. */
  wipe(): Promise<Start>
  /** Corrupts bytes of the saved state and restarts the process. */
  damage(): Promise<Start>
  /** Starts a second process on the same disk. */
  second(): Promise<LibolmDevice>
  /** Requests one sync without processing its answer; `take` processes it. */
  sync(): Promise<PendingSync>
  take(sync: PendingSync): Promise<void>
}

/** Result of a start; `error` is the message for the operator if the device does not run. */
export type Start = { readonly error?: string }

/** Opaque content, specific to the kind of device. */
export type Backup = { readonly content: unknown }
export type PendingSync = { readonly answer: AnyJson; readonly begun: unknown }

export type PoolContents = {
  /** base64url SHA-256 of every key that may be issued, one-time and fallback. */
  readonly issuable: readonly string[]
  /** Number of available one-time keys. */
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
