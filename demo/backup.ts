/** The second half of the story: a phone restored from a backup has forgotten keys, and a reset (MSC4162) heals it. */
import { waitsForNews } from '@latchkey/testing/long-poll.ts'
import type { ClaimedKey } from '@latchkey/testing/matrix-session.ts'
import type { OlmDevice, Upload } from '@latchkey/testing/olm-device.ts'
import { within } from '@latchkey/testing/within.ts'
import { countIn, describe, held, published, reads } from './everyday.ts'
import type { Page } from './page.ts'
import { expect, given, type Stage } from './stage.ts'

const TRIES = 3

/** What the accident leaves behind, for the healing. */
export type Accident = {
  readonly refused: Upload
  /** Holds a key that was claimed before the reset, and has not written yet. */
  readonly erin: OlmDevice
  /** Wrote to a key that the phone has never seen. */
  readonly frank: OlmDevice
}

export async function accident(page: Page, stage: Stage, alice: OlmDevice): Promise<Accident> {
  page.chapter('Her phone is restored from a backup')
  const backup = await alice.backUp()
  page.line('Alice', 'backs her phone up')
  const friends = await stage.device('friends', 'FRIENDS')
  const newKeys = await replaceForty(page, stage, alice, friends)
  await alice.restoreFrom(backup)
  const available: readonly { key_id: string }[] = (await alice.pool()).algorithms.signed_curve25519.available
  const unseen = available.filter(({ key_id: id }) => newKeys.has(`signed_curve25519:${id}`)).length
  expect(unseen === newKeys.size, 'the server still has all keys that the backup does not know')
  page.line('Alice', 'loses it, and restores the backup on a new one')
  page.line('', `the server has ${available.length} keys; ${unseen} of them this phone has never seen`)

  const erin = await stage.device('erin', 'PHONE')
  const forErin = given(await erin.startSession(alice), 'Erin has to claim a key')
  expect(!newKeys.has(forErin.name), 'Erin gets a key that the backup holds')
  page.line('Erin', `claims ${describe(forErin)}, and does not write yet`)
  const between = await friends.session.claimMany(alice.userId, alice.deviceId, available.length - unseen - 1)
  page.line('Friends', `claim ${between.length} more`)
  const frank = await stage.device('frank', 'PHONE')
  const forFrank = given(await frank.write(alice, 'Are you there?'), 'Frank has to claim a key')
  expect(newKeys.get(forFrank.name) === forFrank.key, 'Frank gets a key that the phone has never seen')
  page.line('Frank', `claims ${describe(forFrank)}, and writes`)

  return { refused: await stuck(page, alice, frank, forFrank), erin, frank }
}

export async function healing(page: Page, stage: Stage, alice: OlmDevice, before: Accident): Promise<void> {
  page.chapter('She resets her keys, and everything works again')
  const { refused, erin, frank } = before
  const uploadsBefore = alice.uploads.length
  const reset = await alice.resetKeys()
  const withdrawn = reset['dev.latchkey.withdrawn'].length
  const count = countIn(reset.device_one_time_keys_count)
  expect(withdrawn > 0 && count === 0, 'the reset withdraws every key')
  page.line('Alice', `POST /keys/reset {"all": true}: ${withdrawn} keys withdrawn, ${count} left`)
  await alice.catchUp()
  const accepted = given(alice.uploads[uploadsBefore], 'the phone uploads again')
  expect(accepted.status === 200 && accepted.sent === refused.sent, 'the same upload is accepted')
  page.good('Alice', `the very upload that was refused: ${accepted.status}`)
  page.line('Alice', `publishes ${published(alice)} more keys: ${held(alice)}`)

  const grace = await stage.device('grace', 'LAPTOP')
  page.line(
    'Grace',
    `claims ${describe(given(await grace.write(alice, 'Good to have you back'), 'a claim'))}`,
  )
  await erin.send(alice, 'With the key from before the reset')
  await alice.catchUp()
  reads(page, 'Alice', alice, grace, 'Good to have you back')
  reads(page, 'Alice', alice, erin, 'With the key from before the reset')
  await alice.write(frank, 'Frank, say that again?')
  await frank.catchUp()
  reads(page, 'Frank', frank, alice, 'Frank, say that again?')
  await frank.write(alice, 'I asked whether you are there')
  await alice.catchUp()
  reads(page, 'Alice', alice, frank, 'I asked whether you are there')
  expect(alice.undecryptable.length === 1, 'no other message was lost')
}

/** Forty keys are claimed; the phone, waiting for news, is woken and replaces them. The new keys, by name. */
async function replaceForty(
  page: Page,
  stage: Stage,
  alice: OlmDevice,
  friends: OlmDevice,
): Promise<Map<string, string>> {
  const uploadsBefore = alice.uploads.length
  await alice.catchUp()
  const waiting = alice.sync({ timeoutMs: 60_000 })
  await waitsForNews(stage.server, waiting)
  const claimed = await friends.session.claimMany(alice.userId, alice.deviceId, 40)
  const count = countIn((await within('the waiting sync returns', waiting)).device_one_time_keys_count)
  page.line(
    'New friends',
    `claim ${claimed.length} keys, and her waiting sync returns by itself: ${count} left`,
  )
  await alice.catchUp()
  const fresh = new Map<string, string>()
  for (const { sent } of alice.uploads.slice(uploadsBefore)) {
    const keys = Object.entries<{ key: string }>(JSON.parse(sent).one_time_keys)
    for (const [name, { key }] of keys) fresh.set(name, key)
  }
  expect(fresh.size === claimed.length, 'every claimed key is replaced')
  page.line('Alice', `publishes ${fresh.size} new keys: ${held(alice)}`)
  return fresh
}

/** The phone cannot read the message, and cannot upload: the same request is refused at every try. */
async function stuck(page: Page, alice: OlmDevice, frank: OlmDevice, forFrank: ClaimedKey): Promise<Upload> {
  const uploadsBefore = alice.uploads.length
  for (let i = 0; i < TRIES; i++) await alice.catchUp()
  const lost = alice.undecryptable.find(({ sender }) => sender === frank.userId)
  page.bad('Alice', `cannot decrypt Frank's message: ${given(lost, 'the message is lost').reason}`)
  const missing = /MissingOneTimeKey\("curve25519:([^"]+)"\)/.exec(alice.warnings.join('\n'))?.[1]
  expect(missing === forFrank.key, 'the phone says which key it is missing')
  page.line('', `her phone says: missing one-time key ${missing.slice(0, 8)}..., the one that Frank claimed`)
  const tries = alice.uploads.slice(uploadsBefore)
  const [first] = tries
  expect(first !== undefined && tries.length === TRIES, `${TRIES} uploads are tried`)
  expect(
    tries.every(({ status, sent }) => status === 400 && sent === first.sent),
    'every one is the same and is refused',
  )
  page.bad(
    'Alice',
    `uploads, ${tries.length} times the same: ${tries.map(({ status }) => status).join(', ')}`,
  )
  for (const [i, part] of shortened(first.body.error).entries()) page.line(i === 0 ? 'Server' : '', part)
  return first
}

/** The refusal in lines, its keys cut to what tells them apart. */
function shortened(error: string): string[] {
  return error
    .replaceAll(/\{"key":"(.{8})[^"]*","signatures":\{[^}]*\}\}\}/g, '{"key":"$1...", ...}')
    .replace(' Old key:', '\nOld key:')
    .replace('; new key:', ';\nnew key:')
    .split('\n')
}
