/** Readings of `keys/pool`: the pages that belong together. */
import type { Exchange, Span } from './exchange.ts'
import { type Life, type ListedKey, poolOf } from './facts.ts'
import { asList, asObject, type JsonObject, text } from './json.ts'
import { noteStanding } from './note-standing.ts'

/** By token: a reading whose next page may come. */
export type OpenListings = Map<
  string,
  { readonly first: Span; readonly next: string; readonly pages: readonly JsonObject[] }
>

export function readPoolPage(
  open: OpenListings,
  life: Life,
  exchange: Exchange,
  span: Span,
  answer: JsonObject | undefined,
): void {
  if (answer === undefined) return
  const from = new URLSearchParams(exchange.path.split('?')[1] ?? '').get('from')
  const known = open.get(life.token)
  // Pages of two readings at once cannot be told apart; the one that was overtaken is not judged.
  if (from !== null && known?.next !== from) return
  const first = from === null ? span : (known?.first ?? span)
  const pages = [...(from === null ? [] : (known?.pages ?? [])), answer]
  if (from === null) noteCounts(life, span, answer)
  const next = answer['next_batch']
  open.delete(life.token)
  if (next !== undefined) {
    open.set(life.token, { first, next: text(next), pages })
    return
  }
  const [head] = pages
  const listed = Object.keys(asObject(head?.['algorithms']))
  for (const algorithm of new Set([...listed, ...life.device.pools.keys()])) {
    const pool = poolOf(life.device, algorithm)
    const lists = pages.map((page) => asObject(asObject(page['algorithms'])[algorithm]))
    pool.listings.push({
      n: first.n,
      begin: first.begin,
      end: span.end,
      life,
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

/** Its counts and digests stand with the algorithms, not in a member of their own. */
function noteCounts(life: Life, span: Span, answer: JsonObject): void {
  const algorithms = Object.entries(asObject(answer['algorithms']))
  const counts = algorithms.map(([name, pool]) => [name, asObject(pool)['count'] ?? null] as const)
  const digests = algorithms.map(([name, pool]) => [name, asObject(pool)['digest'] ?? null] as const)
  noteStanding(
    life,
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
