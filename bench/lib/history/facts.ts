/** What a history says, sorted by device, pool and key: the shapes that read.ts fills and the rules read. */
import type { Exchange, Span } from './exchange.ts'

/** From a login to the logout of the same token. */
export type Life = {
  readonly device: Device
  readonly token: string
  /** From the beginning of the first login that may have made it. */
  readonly start: Span
  /** From the first logout that was sent to the first that was answered; `end` is infinite if none was. */
  stop: Span | undefined
}

export type Device = {
  readonly user: string
  readonly id: string
  readonly lives: Life[]
  /** By algorithm. */
  readonly pools: Map<string, Pool>
  readonly published: (Span & { readonly life: Life; readonly ed25519: string; readonly certain: boolean })[]
  readonly standings: Standing[]
}

/** What an answer says of the state of the device's pools. */
export type Standing = Span & {
  readonly life: Life
  readonly counts: ReadonlyMap<string, number>
  /** Materials that this very request stored or withdrew. */
  readonly stored: ReadonlySet<string>
  readonly withdrawn: ReadonlySet<string>
  readonly epoch: string
  readonly version: number
  readonly generation: number
  readonly digest: ReadonlyMap<string, string>
}

export type Pool = {
  readonly device: Device
  readonly algorithm: string
  /** By public key. */
  readonly keys: Map<string, Key>
  readonly byHash: Map<string, Key>
  readonly byName: Map<string, Key>
  readonly fallbacks: (Span & {
    readonly life: Life
    readonly material: string
    /** `stored`, `already_stored`, `already_replaced`, or `unknown`. */
    readonly outcome: string
  })[]
  /** One-time keys and fallback keys that claims were answered with. */
  readonly claims: Claimed[]
  /** Claims that asked for this pool and got no answer. */
  readonly unanswered: Span[]
  readonly resets: Reset[]
  readonly listings: Listing[]
}

export type Claimed = Span & {
  /** Undefined: the claim got nothing. */
  readonly key: { readonly name: string; readonly material: string; readonly text: string } | undefined
}

export type Reset = Span & {
  readonly life: Life
  /** Key IDs; undefined: all. */
  readonly asked: ReadonlySet<string> | undefined
  /** Undefined: no answer came. */
  readonly withdrawn: ReadonlySet<string> | undefined
  /** Materials of the keys that came with it. */
  readonly own: ReadonlySet<string>
}

/** A reading of `keys/pool`, all its pages. */
export type Listing = Span & {
  readonly life: Life
  /** Of the first page, which has all available keys. */
  readonly first: Span
  readonly available: readonly ListedKey[]
  readonly issued: readonly ListedKey[]
}

export type ListedKey = { readonly id: string; readonly hash: string }

export type KeyEventKind =
  | 'stored'
  | 'already_stored'
  | 'already_issued'
  | 'already_removed'
  | 'issued'
  | 'withdrawn'
  | 'absent'
  | 'ended'
  | 'seen available'
  | 'seen issued'
  | 'seen neither'

export type KeyEvent = Span & {
  readonly kind: KeyEventKind
  /** Of the device's own requests: the session, after whose end they do nothing. */
  readonly life?: Life
}

export type Key = {
  readonly pool: Pool
  readonly material: string
  /** key ID -> text of the object. */
  readonly names: Map<string, string>
  /** What happened to it. */
  readonly events: KeyEvent[]
  /** What may have happened to it, or not; any number of times. */
  readonly maybe: KeyEvent[]
  /** Lives in which it may have been stored. */
  readonly lives: Set<Life>
}

export type Message = {
  readonly id: string
  readonly to: Device
  begin: number
  /** Of the first answer; infinite: none came. */
  end: number
  readonly requests: number[]
}

export type SyncAnswer = Span & {
  readonly since: string | undefined
  readonly nextBatch: string
  readonly messages: readonly string[]
}

export type Query = Span & { readonly users: readonly string[]; readonly shown: ReadonlyMap<string, string> }

export type Facts = {
  readonly devices: Map<string, Device>
  readonly lives: Map<string, Life>
  /** By recipient and ID. */
  readonly messages: Map<string, Message>
  readonly syncs: Map<Life, SyncAnswer[]>
  readonly queries: Query[]
  /** Requests with a token: what their status was. */
  readonly sessions: (Span & { readonly life: Life; readonly refused: boolean })[]
  readonly odd: { readonly exchange: Exchange; readonly why: string }[]
  readonly replays: { readonly requests: readonly number[]; readonly same: boolean }[]
  /** Requests without an answer, and those answered 503. */
  unanswered: number
  requests: number
}

export function newFacts(): Facts {
  return {
    devices: new Map(),
    lives: new Map(),
    messages: new Map(),
    syncs: new Map(),
    queries: [],
    sessions: [],
    odd: [],
    replays: [],
    unanswered: 0,
    requests: 0,
  }
}

export function deviceOf(facts: Facts, user: string, id: string): Device {
  const name = `${user} ${id}`
  const known = facts.devices.get(name)
  if (known !== undefined) return known
  const device: Device = { user, id, lives: [], pools: new Map(), published: [], standings: [] }
  facts.devices.set(name, device)
  return device
}

export function poolOf(device: Device, algorithm: string): Pool {
  const known = device.pools.get(algorithm)
  if (known !== undefined) return known
  const pool: Pool = {
    device,
    algorithm,
    keys: new Map(),
    byHash: new Map(),
    byName: new Map(),
    fallbacks: [],
    claims: [],
    unanswered: [],
    resets: [],
    listings: [],
  }
  device.pools.set(algorithm, pool)
  return pool
}

/** `user device algorithm`, for people. */
export function describePool(pool: Pool): string {
  return `${pool.device.user} ${pool.device.id} ${pool.algorithm}`
}
