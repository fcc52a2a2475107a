/** Waiting with an end: a promise that should settle soon, and a failure that names what was waited for. */

const TIMEOUT_MS = 20_000

/**
 * @throws {Error} `what` and the time that passed, when the promise has not settled by then.
 */
export async function within<T>(what: string, promise: Promise<T>, timeoutMs = TIMEOUT_MS): Promise<T> {
  const { promise: late, reject } = Promise.withResolvers<never>()
  const timer = setTimeout(
    () => reject(new Error(`${what}: did not happen within ${timeoutMs} ms`)),
    timeoutMs,
  )
  try {
    return await Promise.race([promise, late])
  } finally {
    clearTimeout(timer)
  }
}
