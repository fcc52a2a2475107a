/** Second half of the demo: a phone restored from a backup has lost keys, and a reset (MSC4162) repairs it. */
import { waitForLongPoll } from '@latchkey/testing/long-poll.ts'
import type { ClaimedKey } from '@latchkey/testing/matrix-session.ts'
import type { OlmDevice, Upload } from '@latchkey/testing/olm-device.ts'
import { within } from '@latchkey/testing/within.ts'
import { countIn, describe, expectDecrypted, publishedCount, storedCount } from './everyday.ts'
import type { Page } from './page.ts'
import { expect, required, type Demo } from './demo-server.ts'

const TRIES = 3

/** State after the restore, from which the next chapter continues. */
export type StaleRestore = {
  readonly refused: Upload
  /** Claimed a key before the reset and has not used it yet. */
  readonly erin: OlmDevice
  /** Encrypted to a key whose private half the restored phone does not have. */
  readonly frank: OlmDevice
}

export async function staleRestore(page: Page, demo: Demo, alice: OlmDevice): Promise<StaleRestore> {
  page.chapter("Alice's phone is restored from a backup")
  const backup = await alice.backUp()
  page.line('Alice', 'backs up the phone')
  const friends = await demo.device('friends', 'FRIENDS')
  const newKeys = await replaceForty(page, demo, alice, friends)
  await alice.restoreFrom(backup)
  const available: readonly { key_id: string }[] = (await alice.pool()).algorithms.signed_curve25519.available
  const unseen = available.filter(({ key_id: id }) => newKeys.has(`signed_curve25519:${id}`)).length
  expect(unseen === newKeys.size, 'the server still has all keys that the backup lacks')
  page.line('Alice', 'loses the phone and restores the backup on a new one')
  page.line('', `the server has ${available.length} keys; the restored phone lacks ${unseen} of them`)

  const erin = await demo.device('erin', 'PHONE')
  const forErin = required(await erin.startSession(alice), 'Erin has to claim a key')
  expect(!newKeys.has(forErin.name), 'Erin gets a key that the backup has')
  page.line('Erin', `claims ${describe(forErin)} and does not write yet`)
  const between = await friends.session.claimMany(alice.userId, alice.deviceId, available.length - unseen - 1)
  page.line('Friends', `claim ${between.length} more`)
  const frank = await demo.device('frank', 'PHONE')
  const forFrank = required(await frank.write(alice, 'Are you there?'), 'Frank has to claim a key')
  expect(newKeys.get(forFrank.name) === forFrank.key, 'Frank gets a key that the phone lacks')
  page.line('Frank', `claims ${describe(forFrank)} and writes`)

  return { refused: await refusedUploads(page, alice, frank, forFrank), erin, frank }
}

export async function healing(page: Page, demo: Demo, alice: OlmDevice, before: StaleRestore): Promise<void> {
  page.chapter('Alice resets the keys, and everything works again')
  const { refused, erin, frank } = before
  const uploadsBefore = alice.uploads.length
  const reset = await alice.resetKeys()
  const withdrawn = reset['dev.latchkey.withdrawn'].length
  const count = countIn(reset.device_one_time_keys_count)
  expect(withdrawn > 0 && count === 0, 'the reset withdraws every key')
  page.line('Alice', `POST /keys/reset {"all": true}: ${withdrawn} keys withdrawn, ${count} left`)
  await alice.catchUp()
  const accepted = required(alice.uploads[uploadsBefore], 'the phone uploads again')
  expect(accepted.status === 200 && accepted.sent === refused.sent, 'the same upload is accepted')
  page.good('Alice', `sends the refused upload again, unchanged: ${accepted.status}`)
  page.line('Alice', `publishes ${publishedCount(alice)} more keys: ${storedCount(alice)}`)

  const grace = await demo.device('grace', 'LAPTOP')
  page.line(
    'Grace',
    `claims ${describe(required(await grace.write(alice, 'Good to have you back'), 'a claim'))}`,
  )
  await erin.send(alice, 'With the key from before the reset')
  await alice.catchUp()
  expectDecrypted(page, 'Alice', alice, grace, 'Good to have you back')
  expectDecrypted(page, 'Alice', alice, erin, 'With the key from before the reset')
  await alice.write(frank, 'Frank, say that again?')
  await frank.catchUp()
  expectDecrypted(page, 'Frank', frank, alice, 'Frank, say that again?')
  await frank.write(alice, 'I asked whether you are there')
  await alice.catchUp()
  expectDecrypted(page, 'Alice', alice, frank, 'I asked whether you are there')
  expect(alice.undecryptable.length === 1, 'no other message was lost')
}

/** Claims forty keys while the phone waits in a long-poll; it wakes and replaces them. Returns the new keys by name. */
async function replaceForty(
  page: Page,
  demo: Demo,
  alice: OlmDevice,
  friends: OlmDevice,
): Promise<Map<string, string>> {
  const uploadsBefore = alice.uploads.length
  await alice.catchUp()
  const waiting = alice.sync({ timeoutMs: 60_000 })
  await waitForLongPoll(demo.server, waiting)
  const claimed = await friends.session.claimMany(alice.userId, alice.deviceId, 40)
  const count = countIn((await within('the waiting sync returns', waiting)).device_one_time_keys_count)
  page.line(
    'New friends',
    `claim ${claimed.length} keys; Alice's waiting sync returns at once: ${count} left`,
  )
  await alice.catchUp()
  const fresh = new Map<string, string>()
  for (const { sent } of alice.uploads.slice(uploadsBefore)) {
    const keys = Object.entries<{ key: string }>(JSON.parse(sent).one_time_keys)
    for (const [name, { key }] of keys) fresh.set(name, key)
  }
  expect(fresh.size === claimed.length, 'every claimed key is replaced')
  page.line('Alice', `publishes ${fresh.size} new keys: ${storedCount(alice)}`)
  return fresh
}

/** The phone can neither decrypt the message nor upload: the server refuses the same request every time. */
async function refusedUploads(
  page: Page,
  alice: OlmDevice,
  frank: OlmDevice,
  forFrank: ClaimedKey,
): Promise<Upload> {
  const uploadsBefore = alice.uploads.length
  for (let i = 0; i < TRIES; i++) await alice.catchUp()
  const lost = alice.undecryptable.find(({ sender }) => sender === frank.userId)
  page.bad('Alice', `cannot decrypt Frank's message: ${required(lost, 'the message is lost').reason}`)
  const missing = /MissingOneTimeKey\("curve25519:([^"]+)"\)/.exec(alice.warnings.join('\n'))?.[1]
  expect(missing === forFrank.key, 'the phone names the missing key')
  page.line(
    '',
    `Alice's phone logs: missing one-time key ${missing.slice(0, 8)}..., the one that Frank claimed`,
  )
  const tries = alice.uploads.slice(uploadsBefore)
  const [first] = tries
  expect(first !== undefined && tries.length === TRIES, `the phone tries ${TRIES} uploads`)
  expect(
    tries.every(({ status, sent }) => status === 400 && sent === first.sent),
    'all uploads are equal and refused',
  )
  page.bad(
    'Alice',
    `sends the same upload ${tries.length} times: ${tries.map(({ status }) => status).join(', ')}`,
  )
  for (const [i, part] of shortened(first.body.error).entries()) page.line(i === 0 ? 'Server' : '', part)
  return first
}

/** The error text, split into lines, with abbreviated keys. */
function shortened(error: string): string[] {
  return error
    .replaceAll(/\{"key":"(.{8})[^"]*","signatures":\{[^}]*\}\}\}/g, '{"key":"$1...", ...}')
    .replace(' Old key:', '\nOld key:')
    .replace('; new key:', ';\nnew key:')
    .split('\n')
}
