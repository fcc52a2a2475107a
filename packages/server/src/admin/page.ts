/** Pages of long lists: the names greater than `after`, and the name with which the next page begins. */
import { Type } from 'typebox'

export const MAX_PAGE = 10_000

export const PageInput = Type.Object({
  after: Type.String({ maxLength: 255 }),
  limit: Type.Integer({ minimum: 1, maximum: MAX_PAGE }),
})

/** The name of the last entry of a full page; null at the end of the list. */
export function nextOf<Entry>(
  entries: readonly Entry[],
  limit: number,
  nameOf: (entry: Entry) => string,
): string | null {
  const last = entries.at(-1)
  return last === undefined || entries.length < limit ? null : nameOf(last)
}
