/** Wraps a store to count the results of completed operations. Not used, and without cost, if metrics are off. */
import type { Errcode } from '@latchkey/protocol'
import { MatrixError } from '../matrix-error.ts'
import type { MessageStore } from '../messages/port.ts'
import type { KeyPools } from '../pool/key-pools.ts'
import type { Store } from '../store.ts'
import type { Metrics } from './metrics.ts'

const CONFLICT: Errcode = 'io.github.johennes.msc4420.M_DUPLICATE_ONE_TIME_KEY'

export function countStore(store: Store, metrics: Metrics): Store {
  return {
    ...store,
    messages: countMessages(store.messages, metrics),
  }
}

/** Wraps key pools to count the results of their operations. */
export function countPools(pools: KeyPools, metrics: Metrics): Pick<KeyPools, keyof KeyPools> {
  const countConflict = (error: unknown): never => {
    if (error instanceof MatrixError && error.errcode === CONFLICT) metrics.conflict()
    throw error
  }
  return {
    inspect: (session, page) => pools.inspect(session, page),
    async claim(command) {
      const keys = await pools.claim(command)
      metrics.claimed(keys)
      return keys
    },
    async upload(command) {
      const result = await pools.upload(command).catch(countConflict)
      metrics.uploaded(result)
      return result
    },
    async reset(command) {
      const result = await pools.reset(command).catch(countConflict)
      metrics.uploaded(result)
      metrics.reset()
      return result
    },
  }
}

function countMessages(messages: MessageStore, metrics: Metrics): MessageStore {
  return {
    ...messages,
    async send(command) {
      const sent = await messages.send(command)
      metrics.sent(command.messages.length, sent.evicted)
      return sent
    },
  }
}
