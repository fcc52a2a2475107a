/**
 * Graceful shutdown of a process. The first signal drains it (waiting syncs are answered, commits finish); a second
 * signal or the deadline exits immediately. Acknowledged writes are durable in both cases.
 */

/** Below the documented 5 seconds, so that the process has exited by then. */
const DRAIN_DEADLINE_MS = 4_500
/** Ctrl-C reaches the whole process group, and npm forwards it as well: signals this close together are one. */
const SAME_SIGNAL_MS = 500
const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const

const ABORTED = 'Some requests did not finish in time and were aborted.'

export type Shutdown = {
  /** Resolves when all requests are closed: `ended` normally, or `aborted`. */
  readonly drain: () => Promise<'ended' | 'aborted'>
  /** The default suits a single process. */
  readonly deadlineMs?: number
  /** Runs before an immediate exit with status 1. */
  readonly beforeExitNow?: () => void
  /** Print nothing: the parent process reports to the operator. */
  readonly quiet?: boolean
}

/**
 * Exits with 0 after a drain, with 1 if requests were aborted. Returns a function that starts the shutdown, and exits
 * with the given code instead of 0.
 */
export function shutdownOnSignal({
  drain,
  deadlineMs = DRAIN_DEADLINE_MS,
  beforeExitNow,
  quiet,
}: Shutdown): (code?: number) => void {
  let firstAtMs: number | undefined
  const exitNow = (reason: string): never => {
    beforeExitNow?.()
    if (quiet !== true) process.stderr.write(`${reason} All acknowledged writes are stored.\n`)
    process.exit(1)
  }
  const begin = async (code = 0): Promise<void> => {
    firstAtMs = performance.now()
    setTimeout(() => exitNow(ABORTED), deadlineMs)
    if ((await drain()) === 'aborted') exitNow(ABORTED)
    process.exit(code)
  }
  for (const signal of SIGNALS) {
    process.on(signal, () => {
      if (firstAtMs === undefined) void begin()
      else if (performance.now() - firstAtMs > SAME_SIGNAL_MS)
        exitNow(`Exited immediately on a second ${signal}.`)
    })
  }
  return (code) => {
    if (firstAtMs === undefined) void begin(code)
  }
}
