/**
 * The accidents program runs every combination of what happens, of how the server before it ended, and of the place of
 * the witness; each with a clock that is right and with a wrong one (issue 11, "Shown by").
 */

/** How the server ended before the event. A kill is a real `kill -9` of a process of its own. */
export const ENDS = ['stopped', 'killed', 'restarted and killed'] as const
/** The witness in the data directory, as in a container, or in a `--fence-dir`. */
export const LAYOUTS = ['witness with the data', 'witness elsewhere'] as const
/** The clock of the process that starts afterwards, as an offset in milliseconds; none decides about keys. */
export const CLOCKS = [
  ['a clock that is right', 0],
  ['a clock 11 minutes ahead', 11 * 60_000],
  ['a clock 11 minutes behind', -11 * 60_000],
  ['a clock in 2099', 70 * 365 * 86_400_000],
  ['a clock in 1970', -56 * 365 * 86_400_000],
] as const

/** Every n-th case is run; 1: all of them. */
export const SAMPLE = Number(process.env['ACCIDENTS_SAMPLE'] ?? 1)

export type Circumstances = {
  readonly end: (typeof ENDS)[number]
  readonly layout: (typeof LAYOUTS)[number]
  readonly clockOffsetMs: number
}

export type Case<K> = Circumstances & { readonly name: string; readonly kind: K }

/** All combinations, or every n-th of them. The wrong clocks take turns. */
export function combine<K extends { readonly name: string }>(kinds: readonly K[]): Case<K>[] {
  const [right, ...wrong] = CLOCKS
  return kinds
    .flatMap((kind) => ENDS.flatMap((end) => LAYOUTS.map((layout) => ({ kind, end, layout }))))
    .flatMap((one, n) =>
      [right, wrong[n % wrong.length] ?? right].map(([clock, clockOffsetMs]) => ({
        ...one,
        name: `${one.kind.name}; ${one.end}, ${one.layout}, ${clock}`,
        clockOffsetMs,
      })),
    )
    .filter((_, n) => n % SAMPLE === 0)
}
