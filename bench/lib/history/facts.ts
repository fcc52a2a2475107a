/** The content of a history by device, pool and key: read.ts fills these types and the rules read them. */
import type { Exchange, Span } from './exchange.ts'

/** A session: from a login to the logout of the same token. */
export type Session = {
  readonly device: Device
  readonly token: string
  /** From the beginning of the first login request that may have created it. */
  readonly start: Span
  /** From the first logout sent to the first one answered; `end` is infinite if none was. */
  stop: Span | undefined
}

export type Device = {
  readonly user: string
  readonly id: string
  readonly sessions: Session[]
  /** Keyed by algorithm. */
  readonly pools: Map<string, Pool>
  readonly published: (Span & {
    readonly session: Session
    readonly ed25519: string
    readonly certain: boolean
  })[]
  readonly snapshots: PoolSnapshot[]
}

/** State of the device's pools according to one answer. */
export type PoolSnapshot = Span & {
  readonly session: Session
  readonly counts: ReadonlyMap<string, number>
  /** Materials that this request itself stored or withdrew. */
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
  /** Keyed by public key. */
  readonly keys: Map<string, Key>
  readonly byHash: Map<string, Key>
  readonly byName: Map<string, Key>
  readonly fallbacks: (Span & {
    readonly session: Session
    readonly material: string
    /** `stored`, `already_stored`, `already_replaced`, or `unknown`. */
    readonly outcome: string
  })[]
  /** One-time keys and fallback keys that claims returned. */
  readonly claims: Claimed[]
  /** Claims of this pool without an answer. */
  readonly unanswered: Span[]
  readonly resets: Reset[]
  readonly listings: Listing[]
}

export type Claimed = Span & {
  /** Undefined: the claim returned no key. */
  readonly key: { readonly name: string; readonly material: string; readonly text: string } | undefined
}

export type Reset = Span & {
  readonly session: Session
  /** Requested key IDs; undefined: all. */
  readonly asked: ReadonlySet<string> | undefined
  /** Undefined: no answer arrived. */
  readonly withdrawn: ReadonlySet<string> | undefined
  /** Materials of the keys that the reset uploads. */
  readonly own: ReadonlySet<string>
}

/** One complete reading of `keys/pool`, with all its pages. */
export type Listing = Span & {
  readonly session: Session
  /** Span of the first page, which has all available keys. */
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
  /** The session of a device's own request, after whose end it has no effect. */
  readonly session?: Session
}

export type Key = {
  readonly pool: Pool
  readonly material: string
  /** Key ID -> JSON text of the key object. */
  readonly names: Map<string, string>
  /** Events that certainly happened. */
  readonly events: KeyEvent[]
  /** Events that may have happened, any number of times. */
  readonly maybe: KeyEvent[]
  /** Sessions in which it may have been stored. */
  readonly sessions: Set<Session>
}

export type Message = {
  readonly id: string
  readonly to: Device
  begin: number
  /** Moment of the first answer; infinite if none arrived. */
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
  readonly sessions: Map<string, Session>
  /** Keyed by recipient and message ID. */
  readonly messages: Map<string, Message>
  readonly syncs: Map<Session, SyncAnswer[]>
  readonly queries: Query[]
  /** Answered requests with a token, and whether the token was refused. */
  readonly authResults: (Span & { readonly session: Session; readonly refused: boolean })[]
  /** Answers that no rule allows. */
  readonly unexpected: { readonly exchange: Exchange; readonly why: string }[]
  readonly replays: { readonly requests: readonly number[]; readonly same: boolean }[]
  /** Number of requests without an answer or answered 503. */
  unanswered: number
  requests: number
}

export function newFacts(): Facts {
  return {
    devices: new Map(),
    sessions: new Map(),
    messages: new Map(),
    syncs: new Map(),
    queries: [],
    authResults: [],
    unexpected: [],
    replays: [],
    unanswered: 0,
    requests: 0,
  }
}

export function deviceOf(facts: Facts, user: string, id: string): Device {
  const name = `${user} ${id}`
  const known = facts.devices.get(name)
  if (known !== undefined) return known
  const device: Device = { user, id, sessions: [], pools: new Map(), published: [], snapshots: [] }
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

/** `user device algorithm`, for display. */
export function describePool(pool: Pool): string {
  return `${pool.device.user} ${pool.device.id} ${pool.algorithm}`
}
