/**
 * The orderly end of a process. The first signal drains (waiting syncs are answered, commits finish); a second one, or the
 * deadline, ends at once. What was acknowledged is durable either way.
 */

/** Below the 5 seconds that are promised, so that the process is gone by then. */
const DRAIN_DEADLINE_MS = 4_500
/** Ctrl-C reaches the whole process group, and npm passes it on too: within this time it is one and the same. */
const SAME_SIGNAL_MS = 500
const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const

const CUT = 'Some requests did not end in time and were cut.'

export type Ending = {
  /** Resolves when nothing is open any more, with whether everything could end. */
  readonly drain: () => Promise<'ended' | 'cut'>
  /** By default what one process needs. */
  readonly deadlineMs?: number
  /** The last act before an end at once; the process exits with 1 after it. */
  readonly beforeCut?: () => void
  /** Somebody else tells the operator. */
  readonly quiet?: boolean
}

/** Exits with 0 after a drain, with 1 when something was cut. Returns what begins the end without a signal. */
export function endOnSignal({ drain, deadlineMs = DRAIN_DEADLINE_MS, beforeCut, quiet }: Ending): () => void {
  let firstAtMs: number | undefined
  const cut = (reason: string): never => {
    beforeCut?.()
    if (quiet !== true) process.stderr.write(`${reason} What was acknowledged is stored.\n`)
    process.exit(1)
  }
  const begin = async (): Promise<void> => {
    firstAtMs = performance.now()
    setTimeout(() => cut(CUT), deadlineMs)
    if ((await drain()) === 'cut') cut(CUT)
    process.exit(0)
  }
  for (const signal of SIGNALS) {
    process.on(signal, () => {
      if (firstAtMs === undefined) void begin()
      else if (performance.now() - firstAtMs > SAME_SIGNAL_MS) cut(`Ended at once by a second ${signal}.`)
    })
  }
  return () => {
    if (firstAtMs === undefined) void begin()
  }
}
