/**
 * A matrix-js-sdk client behind a guard. The only difference from a client without one is `fetchFn`.
 *
 *     node guard-matrix-js-sdk.ts http://127.0.0.1:8008 alice PASSWORD
 *
 * In a browser the store is `indexedDbStore(`latchkey-${deviceId}`)`, shared by all tabs. Here the SDK keeps its keys
 * in memory and every start is a new device, so the ledger can be in memory too.
 */
import { guardFetch, memoryStore } from '@latchkey/client'
import { createClient } from 'matrix-js-sdk'

const [baseUrl = 'http://127.0.0.1:8008', user = 'alice', password = ''] = process.argv.slice(2)

const login = await createClient({ baseUrl }).loginRequest({
  type: 'm.login.password',
  identifier: { type: 'm.id.user', user },
  password,
})

const guard = guardFetch(fetch, {
  store: memoryStore(),
  onEvent: ({ severity, type, message, remedy }) =>
    console.log(`[${severity}] ${type}: ${message} ${remedy}`),
})
const client = createClient({
  baseUrl,
  userId: login.user_id,
  deviceId: login.device_id,
  accessToken: login.access_token,
  fetchFn: guard,
})

await client.initRustCrypto({ useIndexedDB: false })
await client.startClient({ initialSyncLimit: 0 })

// Wait until the SDK has published its keys, which it does after its first sync.
let status = await guard.status()
while ((status.keys.available ?? 0) === 0) {
  await new Promise((resolve) => setTimeout(resolve, 100))
  status = await guard.status()
}
console.log(`guard: ${JSON.stringify(status)}`)
client.stopClient()
// The SDK leaves timers running.
process.exit(0)
