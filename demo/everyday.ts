/** First half of the demo: keys are published, claimed and used up, the fallback key serves, the phone refills. */
import type { ClaimedKey } from '@latchkey/testing/matrix-session.ts'
import type { OlmDevice, Peer } from '@latchkey/testing/olm-device.ts'
import type { Page } from './page.ts'
import { expect, required, type Demo } from './demo-server.ts'

const ALGORITHM = 'signed_curve25519'

export async function publish(page: Page, alice: OlmDevice, bob: OlmDevice): Promise<void> {
  page.chapter('Alice and Bob publish their keys')
  for (const [name, device] of [
    ['Alice', alice],
    ['Bob', bob],
  ] as const) {
    const answer = await device.catchUp()
    const count = countIn(answer.device_one_time_keys_count)
    const fallback = answer.device_unused_fallback_key_types.length
    expect(count === 50 && fallback === 1, `${name} has 50 one-time keys and a fallback key on the server`)
    page.line(name, `${device.userId} ${device.deviceId}: ${count} one-time keys, ${fallback} fallback key`)
  }
}

export async function firstMessage(page: Page, alice: OlmDevice, bob: OlmDevice): Promise<void> {
  page.chapter('Bob claims a key and writes to Alice')
  const claimed = required(await bob.write(alice, 'Lunch at noon?'), 'Bob has to claim a key')
  expect(!claimed.isFallback, 'Bob gets a one-time key')
  page.line('Bob', `claims ${describe(claimed)}`)
  const count = countIn((await alice.catchUp()).device_one_time_keys_count)
  expectDecrypted(page, 'Alice', alice, bob, 'Lunch at noon?')
  page.line(
    'Alice',
    `learns that ${count} keys are left, publishes ${publishedCount(alice)} more: ${storedCount(alice)}`,
  )
  await alice.write(bob, 'Gladly.')
  await bob.catchUp()
  expectDecrypted(page, 'Bob', bob, alice, 'Gladly.')
}

export async function exhaustion(page: Page, demo: Demo, alice: OlmDevice): Promise<void> {
  page.chapter("While Alice's phone is off, others claim all fifty keys")
  const crowd = await demo.device('crowd', 'CROWD')
  const claimed = await crowd.session.claimMany(alice.userId, alice.deviceId, 50)
  const different = new Set(claimed.map(({ key }) => key)).size
  expect(different === 50 && claimed.every(({ isFallback }) => !isFallback), 'fifty different one-time keys')
  page.line('A crowd', `claims ${claimed.length} times at once and gets ${different} different keys`)
  const carol = await demo.device('carol', 'LAPTOP')
  const dave = await demo.device('dave', 'TABLET')
  const writers = [
    ['Carol', carol, 'Hello, this is Carol'],
    ['Dave', dave, 'And this is Dave'],
  ] as const
  for (const [name, device, text] of writers) {
    const key = required(await device.write(alice, text), `${name} has to claim a key`)
    expect(key.isFallback, `${name} gets the fallback key`)
    page.line(name, `claims ${describe(key)}`)
  }
  const answer = await alice.catchUp()
  const [count, unused] = [
    countIn(answer.device_one_time_keys_count),
    answer.device_unused_fallback_key_types.length,
  ]
  expect(count === 0 && unused === 0, 'the sync reports 0 keys and no unused fallback key')
  page.line('Server', `reports to Alice's phone: ${count} one-time keys left, fallback key used`)
  for (const [, device, text] of writers) expectDecrypted(page, 'Alice', alice, device, text)
  page.line('Alice', `publishes ${publishedCount(alice)} new keys: ${storedCount(alice)}`)
}

/** Checks that a device has decrypted a message, and prints it. */
export function expectDecrypted(page: Page, name: string, device: OlmDevice, from: Peer, text: string): void {
  const found = device.received.find((message) => message.sender === from.userId && message.text === text)
  page.good(name, `decrypts "${required(found, `${name} decrypts "${text}"`).text}"`)
}

/** `signed_curve25519:AAAAAAAAAA0 (TEOx8OTI...)` */
export function describe({ name, key, isFallback }: ClaimedKey): string {
  return `${isFallback ? 'the fallback key' : 'the one-time key'} ${name.replace(`${ALGORITHM}:`, '')} (${key.slice(0, 8)}...)`
}

export function countIn(counts: Readonly<Record<string, number>>): number {
  return required(counts[ALGORITHM], `a count of ${ALGORITHM}`)
}

/** Number of one-time keys in a device's last upload. */
export function publishedCount(device: OlmDevice): number {
  const { status, sent } = device.lastUpload
  expect(status === 200, 'the upload succeeds')
  return Object.keys(JSON.parse(sent).one_time_keys).length
}

/** The server's key count after that upload, as text. */
export function storedCount(device: OlmDevice): string {
  return `${countIn(device.lastUpload.body.one_time_key_counts)} on the server`
}
