/**
 * The pages in which `GET keys/pool` lists issued keys (extensions.md): pool by pool, by name of the algorithm, the
 * last uploaded first. The same order in every store.
 */
import { invalidParam } from '../matrix-error.ts'

/** The last issued key of the page before: the store's numbers of its pool and of its place in the log. */
export type IssuedCursor = { readonly pool: number; readonly place: number }

/** @throws {MatrixError} 400 when `from` is not the `next_batch` of an earlier answer. */
export function readCursor(from: string | undefined): IssuedCursor | undefined {
  if (from === undefined) return undefined
  const [, place, pool] = /^(\d{1,15})-(\d{1,15})$/.exec(from) ?? []
  if (place === undefined) throw invalidParam('from: expected the next_batch of an earlier answer.')
  return { place: Number(place), pool: Number(pool) }
}

export function writeCursor({ pool, place }: IssuedCursor): string {
  return `${place}-${pool}`
}

/**
 * The start of the page in each pool: skips the pools before the cursor's pool, continues that pool below the cursor,
 * and reads later pools from their newest key. `pools` are the store's numbers, in order.
 */
export function pagesFrom(
  pools: readonly number[],
  cursor: IssuedCursor | undefined,
): readonly IssuedCursor[] {
  const first = cursor === undefined ? 0 : pools.indexOf(cursor.pool)
  if (first === -1) return []
  return pools
    .slice(first)
    .map((pool) => (pool === cursor?.pool ? cursor : { pool, place: Number.MAX_SAFE_INTEGER }))
}
