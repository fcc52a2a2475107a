/**
 * PostgreSQL stores for the contract suite: each test has a fresh schema on the server of LATCHKEY_TEST_POSTGRES. A
 * store reaches the server through a proxy, so that a test can end its connections as a killed process would.
 */
import { randomUUID } from 'node:crypto'
import { DEFAULT_CONFIG, postgresOptions } from '../../src/config/config.ts'
import type { DepletionDefence } from '../../src/pool/depletion.ts'
import type { PoolPolicy } from '../../src/pool/policy.ts'
import type { Store } from '../../src/store.ts'
import { openPostgresStore } from '../../src/store/postgres/index.ts'
import { TcpProxy } from '@latchkey/testing/tcp-proxy.ts'
import { openTestSchema, type TestSchema } from '@latchkey/testing/test-schema.ts'
import type { OpenStore, StoreUnderTest } from './store-under-test.ts'

/** Connections per store: few, so that concurrent test files stay below the server's limit. */
const CONNECTIONS = 5
/** The start of the tests' clock. Their operations stay within its retention times. */
const TEST_TIME = 1_700_000_000_000

/** A store, and the proxy between it and the database. */
export type ProxiedStore = {
  readonly store: Store
  readonly proxy: TcpProxy
  readonly close: () => Promise<void>
}

export const postgres: StoreUnderTest = {
  name: 'postgres',
  prefersSubmissionOrder: false,
  async open(policy, depletion) {
    const schema = await freshSchema()
    try {
      return await openIn(schema, policy, depletion)
    } catch (error) {
      await schema.drop()
      throw error
    }
  },
}

/** @throws {Error} without LATCHKEY_TEST_POSTGRES. */
export async function freshSchema(): Promise<TestSchema> {
  const schema = await openTestSchema(randomUUID())
  if (schema === undefined) throw new Error('LATCHKEY_TEST_POSTGRES is not set')
  return schema
}

/** Opens another store over the same schema, as another process would. */
export async function openProxied(
  { database, witnesses }: TestSchema,
  pools: PoolPolicy,
  depletion?: DepletionDefence,
): Promise<ProxiedStore> {
  const url = new URL(database)
  const proxy = await TcpProxy.before(url)
  url.host = `127.0.0.1:${proxy.port}`
  try {
    const store = await openPostgresStore({
      ...postgresOptions({ ...DEFAULT_CONFIG, database: url.href, databaseConnections: CONNECTIONS, pools }),
      ...(depletion && { depletion }),
      fence: { directory: witnesses },
      onFence: ({ kind }) => {
        if (kind === 'raised') throw new Error('the fence was raised although nothing was lost')
      },
      now: () => TEST_TIME,
    })
    const close = async (): Promise<void> => {
      await store.close()
      await proxy.close()
    }
    return { store, proxy, close }
  } catch (error) {
    await proxy.close()
    throw error
  }
}

async function openIn(
  schema: TestSchema,
  pools: PoolPolicy,
  depletion?: DepletionDefence,
): Promise<OpenStore> {
  const { store, proxy, close } = await openProxied(schema, pools, depletion)
  return {
    store,
    async crash() {
      await proxy.close()
      // The closed proxy keeps the writes of this close from the database.
      await store.close()
      return openIn(schema, pools, depletion)
    },
    async close() {
      await close()
      await schema.drop()
    },
  }
}
