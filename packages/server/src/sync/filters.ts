/** Filters of a user (client-server API, "Filtering"): numbered from 0, the same text always under the same ID. */

export type FilterLimits = { readonly filtersPerUser: number }

export type FilterFacts = {
  /** The filter of the user that has this text already. */
  readonly same: number | undefined
  /** The user's highest filter ID. */
  readonly newest: number | undefined
}

export type NewFilter = {
  readonly kind: 'add'
  readonly filterId: number
  /** Filters up to this ID are deleted. */
  readonly dropUpTo: number | undefined
}

export type FilterDecision = { readonly kind: 'known'; readonly filterId: number } | NewFilter

/**
 * A client that uploads its filter at every start does not fill the table. Above the limit the oldest filter is
 * dropped: a client whose filter is unknown uploads it again.
 */
export function decideFilter(
  { same, newest }: FilterFacts,
  { filtersPerUser }: FilterLimits,
): FilterDecision {
  if (same !== undefined) return { kind: 'known', filterId: same }
  const filterId = newest === undefined ? 0 : newest + 1
  const dropUpTo = filterId - filtersPerUser
  return { kind: 'add', filterId, dropUpTo: dropUpTo < 0 ? undefined : dropUpTo }
}

/** The number of a filter ID that this server may have given out; undefined for any other text. */
export function parseFilterId(text: string): number | undefined {
  return /^(0|[1-9]\d{0,14})$/.test(text) ? Number(text) : undefined
}
