/** Detects that a sync has reached the server and waits there as a long-poll. */
import { setImmediate } from 'node:timers/promises'
import type { Server } from '../../server/src/main.ts'

/** Resolves when `sync` waits on the server. @throws {Error} when it is answered at once instead. */
export async function waitForLongPoll(server: Server, sync: Promise<unknown>): Promise<void> {
  let answered = false
  const note = (): void => {
    answered = true
  }
  void sync.then(note, note)
  while (server.context.waiters.count === 0) {
    if (answered) throw new Error('the sync was answered at once; expected it to wait')
    await setImmediate()
  }
}
