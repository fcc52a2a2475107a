/** Assembles readings of `keys/pool` from their pages. */
import type { Exchange, Span } from './exchange.ts'
import { type Session, type ListedKey, poolOf } from './facts.ts'
import { asList, asObject, type JsonObject, text } from './json.ts'
import { addSnapshot } from './add-snapshot.ts'

/** Readings whose next page may follow, by token. */
export type OpenListings = Map<
  string,
  { readonly first: Span; readonly next: string; readonly pages: readonly JsonObject[] }
>

export function readPoolPage(
  open: OpenListings,
  session: Session,
  exchange: Exchange,
  span: Span,
  answer: JsonObject | undefined,
): void {
  if (answer === undefined) return
  const from = new URLSearchParams(exchange.path.split('?')[1] ?? '').get('from')
  const known = open.get(session.token)
  // Pages of two concurrent readings cannot be distinguished; the overtaken reading is not checked.
  if (from !== null && known?.next !== from) return
  const first = from === null ? span : (known?.first ?? span)
  const pages = [...(from === null ? [] : (known?.pages ?? [])), answer]
  if (from === null) addCounts(session, span, answer)
  const next = answer['next_batch']
  open.delete(session.token)
  if (next !== undefined) {
    open.set(session.token, { first, next: text(next), pages })
    return
  }
  const [head] = pages
  const listed = Object.keys(asObject(head?.['algorithms']))
  for (const algorithm of new Set([...listed, ...session.device.pools.keys()])) {
    const pool = poolOf(session.device, algorithm)
    const lists = pages.map((page) => asObject(asObject(page['algorithms'])[algorithm]))
    pool.listings.push({
      n: first.n,
      begin: first.begin,
      end: span.end,
      session,
      first,
      available: keysOf(lists.slice(0, 1), 'available'),
      issued: keysOf(lists, 'issued'),
    })
  }
}

function keysOf(lists: readonly JsonObject[], member: string): ListedKey[] {
  return lists.flatMap((list) =>
    asList(list[member]).map((key) => ({
      id: text(asObject(key)['key_id']),
      hash: text(asObject(key)['key_hash']),
    })),
  )
}

/** `keys/pool` has its counts and digests per algorithm, not in separate members. */
function addCounts(session: Session, span: Span, answer: JsonObject): void {
  const algorithms = Object.entries(asObject(answer['algorithms']))
  const counts = algorithms.map(([name, pool]) => [name, asObject(pool)['count'] ?? null] as const)
  const digests = algorithms.map(([name, pool]) => [name, asObject(pool)['digest'] ?? null] as const)
  addSnapshot(
    session,
    span,
    {
      counts: Object.fromEntries(counts),
      'dev.latchkey.key_pool': {
        epoch: answer['epoch'] ?? null,
        version: answer['version'] ?? null,
        generation: answer['generation'] ?? null,
        digest: Object.fromEntries(digests),
      },
    },
    'counts',
  )
}
