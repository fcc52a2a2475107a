/**
 * The accidents of operators, and the harmless events, that the accidents program runs (issue 11, "Shown by"): every
 * combination of a kind, of how the process before it ended, of the place of the witness, and of a clock.
 */

/** How the process ended before the accident. */
export const ENDS = ['stopped', 'killed'] as const
/** The witness in the data directory, or in a `--fence-dir`. */
export const LAYOUTS = ['witness with the data', 'witness elsewhere'] as const
/** The clock of the process that starts afterwards, as an offset in milliseconds; none decides about keys. */
export const CLOCKS = [
  ['a clock that is right', 0],
  ['a clock 11 minutes ahead', 11 * 60_000],
  ['a clock 11 minutes behind', -11 * 60_000],
  ['a clock in 2099', 70 * 365 * 86_400_000],
  ['a clock in 1970', -56 * 365 * 86_400_000],
] as const

export const ACCIDENTS = [
  'an online backup is copied over the database, its log stays',
  'an online backup is copied over the database, its log is deleted',
  'the database and its log are put back together from a copy of the files',
  'the log is deleted',
  'an online backup is put back by "latchkey restore"',
  'an online backup is put back by "latchkey restore", and the witness is lost',
  'an online backup is put back, and the witness was copied to a second name',
  'the lock is deleted, and a second server starts',
  'the lock is deleted, and two more servers start',
  'an online backup is put back twice',
] as const

export const HARMLESS = [
  'a restart',
  'three restarts',
  'a start without work, and another one',
  'a reboot',
  'the data directory is renamed',
  'a second server is refused by the lock',
  'the status of the fence is read',
  'the structure of the database is checked',
  'a backup is made',
  'the present files are copied and put back unchanged',
] as const

export type Kind = (typeof ACCIDENTS)[number] | (typeof HARMLESS)[number]

export type Case<K extends Kind> = {
  readonly name: string
  readonly kind: K
  readonly end: (typeof ENDS)[number]
  readonly layout: (typeof LAYOUTS)[number]
  readonly clockOffsetMs: number
}

/** All combinations; with `sample` every n-th of them, so that each kind is among them. */
export function combine<K extends Kind>(kinds: readonly K[], sample = 1): Case<K>[] {
  return kinds
    .flatMap((kind) =>
      ENDS.flatMap((end) =>
        LAYOUTS.flatMap((layout) =>
          CLOCKS.map(([clock, clockOffsetMs]) => ({
            name: `${kind}; ${end}, ${layout}, ${clock}`,
            kind,
            end,
            layout,
            clockOffsetMs,
          })),
        ),
      ),
    )
    .filter((_, n) => n % sample === 0)
}
