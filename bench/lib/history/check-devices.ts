/** Rules about sessions, published device keys and to-device messages. */
import type { Violation } from './exchange.ts'
import type { Device, Facts, Session, Message, Query, SyncAnswer } from './facts.ts'

const NEVER = Number.POSITIVE_INFINITY
/** A sync with this many messages may leave others for the next sync. */
const FULL_SYNC = 100

export function checkSessions({ authResults }: Facts): Violation[] {
  return authResults.flatMap(({ n, begin, end, session, refused }) => {
    const stop = session.stop
    const who = `${session.device.user} ${session.device.id}`
    if (refused && !(stop !== undefined && stop.begin < end)) {
      return [
        {
          rule: 'session' as const,
          text: `${who} is refused although no request logged it out`,
          requests: [n],
        },
      ]
    }
    if (!refused && stop !== undefined && stop.end < begin) {
      return [{ rule: 'session' as const, text: `${who} is served after its logout`, requests: [stop.n, n] }]
    }
    return []
  })
}

export function checkQueries({ queries, devices }: Facts): Violation[] {
  return queries.flatMap((query) =>
    [...devices.values()].flatMap((device) =>
      query.users.includes(device.user) ? checkShown(device, query) : [],
    ),
  )
}

function checkShown({ user, id, published }: Device, { n, begin, end, shown }: Query): Violation[] {
  const key = shown.get(`${user} ${id}`)
  if (key === undefined) {
    const missing = published.find(
      (store) => store.certain && store.end < begin && (store.session.stop?.begin ?? NEVER) > end,
    )
    const text = `keys/query does not show the device keys of ${user} ${id}`
    return missing === undefined ? [] : [{ rule: 'query', text, requests: [missing.n, n] }]
  }
  const own = published.filter(({ ed25519 }) => ed25519 === key)
  if (own.some((store) => store.begin < end && (store.session.stop?.end ?? NEVER) > begin)) return []
  const why = own.length === 0 ? 'never uploaded' : 'uploaded by a session that did not exist then'
  const text = `keys/query shows device keys of ${user} ${id} that were ${why}`
  return [{ rule: 'query', text, requests: [...own.map((store) => store.n), n] }]
}

export function checkMessages(facts: Facts): Violation[] {
  const byDevice = Map.groupBy(facts.messages.values(), ({ to }) => to)
  return [...facts.devices.values()].flatMap((device) =>
    device.sessions.flatMap((session) =>
      checkInbox(session, byDevice.get(device) ?? [], facts.syncs.get(session) ?? []),
    ),
  )
}

function checkInbox(session: Session, sent: readonly Message[], answers: readonly SyncAnswer[]): Violation[] {
  const who = `${session.device.user} ${session.device.id}`
  const syncs = answers.toSorted((a, b) => a.begin - b.begin)
  const known = new Map(sent.map((message) => [message.id, message]))
  const delivered = new Map<string, SyncAnswer>()
  const violations: Violation[] = []
  let latest: Message | undefined
  const broken = (
    rule: 'delivered' | 'message order',
    text: string,
    ...requests: readonly number[]
  ): void => {
    violations.push({ rule, text, requests })
  }
  for (const sync of syncs) {
    for (const id of sync.messages) {
      const message = known.get(id)
      const before = delivered.get(id)
      delivered.set(id, sync)
      if (message === undefined || message.begin > sync.end) {
        broken('delivered', `${who} gets message ${id}, which was not sent to it before`, sync.n)
      } else if (message.end < session.start.begin) {
        broken('delivered', `${who} gets message ${id}, sent before its login`, ...message.requests, sync.n)
      } else if (before !== undefined) {
        broken('delivered', `${who} gets message ${id} twice`, before.n, sync.n)
      } else if (latest !== undefined && message.end < latest.begin) {
        const text = `${who} gets message ${latest.id} before ${id}, which was sent before it`
        broken('message order', text, ...message.requests, ...latest.requests, sync.n)
      }
      if (message !== undefined && (latest === undefined || message.begin > latest.begin)) latest = message
    }
  }
  for (const message of sent) {
    if (message.end === NEVER || message.begin < session.start.end) continue
    if (message.end > (session.stop?.begin ?? NEVER)) continue
    const due = syncs.find((sync) => sync.begin > message.end && sync.messages.length < FULL_SYNC)
    const got = delivered.get(message.id)
    if (due !== undefined && (got === undefined || got.begin > due.begin)) {
      broken('delivered', `${who} does not get message ${message.id}`, ...message.requests, due.n)
    }
  }
  return violations
}
