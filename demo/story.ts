/**
 * `npm run demo`: the life of a device's keys in the terminal, with a real server and real devices (matrix-sdk-crypto).
 * Every printed line was observed. The demo exits with an error when a step does not happen as described.
 */
import { getVersions } from '@matrix-org/matrix-sdk-crypto-wasm'
import { healing, staleRestore } from './backup.ts'
import { exhaustion, firstMessage, publish } from './everyday.ts'
import { Page } from './page.ts'
import { openDemo } from './demo-server.ts'

async function main(): Promise<void> {
  const page = new Page()
  const startMs = performance.now()
  await using demo = await openDemo()
  const alice = await demo.device('alice', 'PHONE', { stored: true })
  const bob = await demo.device('bob', 'LAPTOP')
  page.title('Latchkey: every one-time key issued once')
  page.line('Server', `${demo.server.url}, ${demo.server.serverName}`)
  page.line('Devices', `matrix-sdk-crypto ${getVersions().matrix_sdk_crypto}, unmodified`)
  await publish(page, alice, bob)
  await firstMessage(page, alice, bob)
  await exhaustion(page, demo, alice)
  await healing(page, demo, alice, await staleRestore(page, demo, alice))
  page.title(`Done in ${((performance.now() - startMs) / 1000).toFixed(1)} s.`)
}

try {
  await main()
} catch (error) {
  console.error('\nThe demo failed.', error)
  process.exitCode = 1
}
