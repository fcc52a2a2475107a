/** Waits for a promise with a time limit. */

const TIMEOUT_MS = 20_000

/**
 * @throws {Error} with `what` and the limit, when the promise has not settled in time.
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
