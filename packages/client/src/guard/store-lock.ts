/**
 * The store's lock, with an end to the waiting: an upload that hangs in one tab, on a server that never answers, is not to
 * hold up those of the others for ever.
 */
import type { GuardContext } from './context.ts'

/** Runs `work` under the store's lock. @throws when the lock does not come in time; `work` is not run then */
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
