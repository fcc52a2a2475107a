/** The store's lock with a timeout, so that a hanging upload of one tab does not block the others indefinitely. */
import type { GuardContext } from './context.ts'

/** Runs `work` under the store's lock. @throws when the lock is not acquired in time; then `work` never runs */
export function withStoreLock<T>(
  { settings, state }: Pick<GuardContext, 'settings' | 'state'>,
  work: () => Promise<T>,
): Promise<T> {
  const { timeoutMs } = settings
  return new Promise((resolve, reject) => {
    let isLate = false
    const timer = setTimeout(() => {
      isLate = true
      reject(new Error(`another request, tab or process has held the store's lock for ${timeoutMs / 1000} s`))
    }, timeoutMs)
    const done = state.exclusively(async () => {
      clearTimeout(timer)
      if (!isLate) resolve(await work())
    })
    done.catch((error: unknown) => {
      clearTimeout(timer)
      reject(error)
    })
  })
}
