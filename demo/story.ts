/**
 * `npm run demo`: the whole story in the terminal, with a real server and real devices (matrix-sdk-crypto). Every line is
 * something that happened; where something does not go as told, it says so and ends with a failure.
 */
import { getVersions } from '@matrix-org/matrix-sdk-crypto-wasm'
import { accident, healing } from './backup.ts'
import { exhaustion, firstMessage, publish } from './everyday.ts'
import { Page } from './page.ts'
import { openStage } from './stage.ts'

async function tell(): Promise<void> {
  const page = new Page()
  const begun = performance.now()
  await using stage = await openStage()
  const alice = await stage.device('alice', 'PHONE', { stored: true })
  const bob = await stage.device('bob', 'LAPTOP')
  page.title('Latchkey: every one-time key issued once')
  page.line('Server', `${stage.server.url}, ${stage.server.serverName}`)
  page.line('Devices', `matrix-sdk-crypto ${getVersions().matrix_sdk_crypto}, unmodified`)
  await publish(page, alice, bob)
  await firstMessage(page, alice, bob)
  await exhaustion(page, stage, alice)
  await healing(page, stage, alice, await accident(page, stage, alice))
  page.title(`Done in ${((performance.now() - begun) / 1000).toFixed(1)} s.`)
}

try {
  await tell()
} catch (error) {
  console.error('\nThe story did not go as told.', error)
  process.exitCode = 1
}
