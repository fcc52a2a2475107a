/** Knowing that a sync has reached the server and waits there for news. */
import { setImmediate } from 'node:timers/promises'
import type { Server } from '../../server/src/main.ts'

/** Resolves when a sync waits at the server. @throws {Error} when `sync` is answered at once instead. */
export async function waitForLongPoll(server: Server, sync: Promise<unknown>): Promise<void> {
  let answered = false
  const note = (): void => {
    answered = true
  }
  void sync.then(note, note)
  while (server.context.waiters.count === 0) {
    if (answered) throw new Error('the sync was answered at once; expected it to wait for news')
    await setImmediate()
  }
}
