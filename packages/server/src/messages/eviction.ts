/**
 * Eviction from a full inbox (issue 11, B1): the oldest message of the sender that has the most there leaves, until the
 * inbox fits; never a message of a sender that has less. Of senders with equally much, the one with the oldest message
 * is first. A sender is a user: more devices give no more room. Over both limits, bytes come before messages.
 *
 * A store reads what each sender has, then only the oldest messages of the senders above the level at which the inbox
 * fits: no sender below it loses any. It makes room for a 64th of the limit, so that not every message pays for that.
 */
import type { Position, UserRef } from '../session.ts'
import type { InboxLimits, InboxLoad } from './inbox.ts'

export type Measure = keyof InboxLoad

/** All messages of one sender in an inbox. */
export type SenderLoad = InboxLoad & { readonly sender: UserRef }

/** A sender above the level, and how much of it is above. */
export type Candidate = { readonly sender: UserRef; readonly excess: number }

export type EvictionPlan = {
  readonly measure: Measure
  /** How much has to leave, in the measure. */
  readonly surplus: number
  /** The amount that each candidate has, in the measure. */
  readonly totals: ReadonlyMap<UserRef, number>
  /** A store reads the oldest messages of each, as many as make up the excess. */
  readonly candidates: readonly Candidate[]
}

export type WaitingMessage = {
  readonly sender: UserRef
  readonly pos: Position
  readonly length: number
}

const ROOM_DIVISOR = 64

/** Undefined: the inbox is within its limits. After an eviction ask again, because it may exceed the other one. */
export function planEviction(
  senders: readonly SenderLoad[],
  { inboxMessages, inboxLength }: InboxLimits,
): EvictionPlan | undefined {
  return planFor('length', senders, inboxLength) ?? planFor('messages', senders, inboxMessages)
}

function planFor(measure: Measure, senders: readonly SenderLoad[], limit: number): EvictionPlan | undefined {
  const total = senders.reduce((sum, load) => sum + load[measure], 0)
  if (total <= limit) return undefined
  const kept = limit - Math.floor(limit / ROOM_DIVISOR)
  const level = levelFor(
    senders.map((load) => load[measure]),
    kept,
  )
  const above = senders.filter((load) => load[measure] > level)
  return {
    measure,
    surplus: total - kept,
    totals: new Map(above.map((load) => [load.sender, load[measure]])),
    candidates: above.map((load) => ({ sender: load.sender, excess: load[measure] - level })),
  }
}

/** The highest level to which all amounts can be cut so that their sum is at most `kept`. */
function levelFor(amounts: readonly number[], kept: number): number {
  const descending = [...amounts].sort((a, b) => b - a)
  let rest = descending.reduce((sum, amount) => sum + amount, 0)
  for (const [place, amount] of descending.entries()) {
    rest -= amount
    const level = Math.floor((kept - rest) / (place + 1))
    if (level >= (descending[place + 1] ?? 0)) return level
  }
  return 0
}

/** The messages that leave, of the oldest ones of each candidate; in the order in which they leave. */
export function chooseEvicted(
  { measure, surplus, totals, candidates }: EvictionPlan,
  oldest: readonly WaitingMessage[],
): readonly WaitingMessage[] {
  const queues = new Map(candidates.map(({ sender }) => [sender, [] as WaitingMessage[]]))
  for (const message of [...oldest].sort((a, b) => b.pos - a.pos)) queues.get(message.sender)?.push(message)
  const left = new Map(totals)
  const evicted: WaitingMessage[] = []
  for (let missing = surplus; missing > 0; ) {
    const sender = heaviest(left, queues)
    const message = sender === undefined ? undefined : queues.get(sender)?.pop()
    if (sender === undefined || message === undefined) break
    const amount = measure === 'messages' ? 1 : message.length
    evicted.push(message)
    left.set(sender, (left.get(sender) ?? 0) - amount)
    missing -= amount
  }
  return evicted
}

function heaviest(
  totals: ReadonlyMap<UserRef, number>,
  queues: ReadonlyMap<UserRef, readonly WaitingMessage[]>,
): UserRef | undefined {
  let found: { readonly sender: UserRef; readonly total: number; readonly pos: Position } | undefined
  for (const [sender, total] of totals) {
    const pos = queues.get(sender)?.at(-1)?.pos
    if (pos === undefined) continue
    if (found === undefined || total > found.total || (total === found.total && pos < found.pos))
      found = { sender, total, pos }
  }
  return found?.sender
}

/** The size of an inbox after evictions. */
export function loadAfter(senders: readonly SenderLoad[], evicted: readonly WaitingMessage[]): InboxLoad {
  return {
    messages: senders.reduce((sum, load) => sum + load.messages, 0) - evicted.length,
    length:
      senders.reduce((sum, load) => sum + load.length, 0) -
      evicted.reduce((sum, { length }) => sum + length, 0),
  }
}
