/** The first half of the story: keys are published, claimed and used up; the fallback key bridges; the phone refills. */
import type { ClaimedKey } from '@latchkey/testing/matrix-session.ts'
import type { OlmDevice, Peer } from '@latchkey/testing/olm-device.ts'
import type { Page } from './page.ts'
import { expect, given, type Stage } from './stage.ts'

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
  const claimed = given(await bob.write(alice, 'Lunch at noon?'), 'Bob has to claim a key')
  expect(!claimed.isFallback, 'Bob gets a one-time key')
  page.line('Bob', `claims ${describe(claimed)}`)
  const count = countIn((await alice.catchUp()).device_one_time_keys_count)
  reads(page, 'Alice', alice, bob, 'Lunch at noon?')
  page.line('Alice', `hears that ${count} keys are left, publishes ${published(alice)} more: ${held(alice)}`)
  await alice.write(bob, 'Gladly.')
  await bob.catchUp()
  reads(page, 'Bob', bob, alice, 'Gladly.')
}

export async function exhaustion(page: Page, stage: Stage, alice: OlmDevice): Promise<void> {
  page.chapter('While her phone is off, fifty keys are claimed away')
  const crowd = await stage.device('crowd', 'CROWD')
  const claimed = await crowd.session.claimMany(alice.userId, alice.deviceId, 50)
  const different = new Set(claimed.map(({ key }) => key)).size
  expect(different === 50 && claimed.every(({ isFallback }) => !isFallback), 'fifty different one-time keys')
  page.line('A crowd', `claims ${claimed.length} times at once and gets ${different} different keys`)
  const carol = await stage.device('carol', 'LAPTOP')
  const dave = await stage.device('dave', 'TABLET')
  const writers = [
    ['Carol', carol, 'Hello, this is Carol'],
    ['Dave', dave, 'And this is Dave'],
  ] as const
  for (const [name, device, text] of writers) {
    const key = given(await device.write(alice, text), `${name} has to claim a key`)
    expect(key.isFallback, `${name} gets the fallback key`)
    page.line(name, `claims ${describe(key)}`)
  }
  const answer = await alice.catchUp()
  const [count, unused] = [
    countIn(answer.device_one_time_keys_count),
    answer.device_unused_fallback_key_types.length,
  ]
  expect(count === 0 && unused === 0, 'the sync says 0 keys, and no unused fallback key')
  page.line('Server', `tells her phone: ${count} one-time keys left, fallback key used`)
  for (const [, device, text] of writers) reads(page, 'Alice', alice, device, text)
  page.line('Alice', `publishes ${published(alice)} new keys: ${held(alice)}`)
}

/** Says that a device has decrypted a message. */
export function reads(page: Page, name: string, device: OlmDevice, from: Peer, text: string): void {
  const found = device.received.find((message) => message.sender === from.userId && message.text === text)
  page.good(name, `decrypts "${given(found, `${name} decrypts "${text}"`).text}"`)
}

/** `signed_curve25519:AAAAAAAAAA0 (TEOx8OTI...)` */
export function describe({ name, key, isFallback }: ClaimedKey): string {
  return `${isFallback ? 'the fallback key' : 'the one-time key'} ${name.replace(`${ALGORITHM}:`, '')} (${key.slice(0, 8)}...)`
}

export function countIn(counts: Readonly<Record<string, number>>): number {
  return given(counts[ALGORITHM], `a count of ${ALGORITHM}`)
}

/** How many one-time keys a device's last upload published. */
export function published(device: OlmDevice): number {
  const { status, sent } = device.lastUpload
  expect(status === 200, 'the upload succeeds')
  return Object.keys(JSON.parse(sent).one_time_keys).length
}

/** What the server said that it has, after that upload. */
export function held(device: OlmDevice): string {
  return `${countIn(device.lastUpload.body.one_time_key_counts)} on the server`
}
