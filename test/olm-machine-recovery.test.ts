/**
 * Faults between a client and its key server, with an unmodified OlmMachine: lost answers, restarts, a phone restored
 * from a backup, and the reset that heals it (MSC4162). matrix-rust-sdk parses the text of the refusal.
 */
import assert from 'node:assert/strict'
import { after, test } from 'node:test'
import { startTestServer } from '@latchkey/testing/test-server.ts'
import { OlmDevice } from '@latchkey/testing/olm-device.ts'

const server = await startTestServer()
after(() => server[Symbol.asyncDispose]())

function ready(user: string): Promise<OlmDevice> {
  return OlmDevice.ready(server.url, { user, deviceId: 'PHONE' })
}

/** A device with a persistent store. */
function stored(user: string): Promise<OlmDevice> {
  return OlmDevice.signIn(server.url, { user, deviceId: 'PHONE', storeName: user })
}

test('an upload repeated unchanged after a restart is answered 200 and stores nothing twice', async () => {
  using alice = await stored('restart-alice')
  await alice.sync()
  await alice.sendRequests({ loseUploadAnswer: true })
  await alice.restart()
  await alice.sendRequests()
  const [lost, repeated] = alice.uploads
  assert.ok(lost && repeated)
  assert.equal(repeated.sent, lost.sent)
  assert.equal(repeated.status, 200)
  assert.deepEqual(repeated.body.one_time_key_counts, { signed_curve25519: 50 })
  assert.deepEqual(
    new Set(Object.values(repeated.body['dev.latchkey.outcomes'])),
    new Set(['already_stored']),
  )

  using bob = await ready('restart-bob')
  await bob.write(alice, 'after the restart')
  await alice.catchUp()
  assert.deepEqual(alice.received, [{ sender: bob.userId, text: 'after the restart' }])
})

test('a key claimed between a lost answer and the repeated upload is not issued again', async () => {
  using alice = await stored('lost-alice')
  using bob = await ready('lost-bob')
  using carol = await ready('lost-carol')
  await alice.sync()
  await alice.sendRequests({ loseUploadAnswer: true })
  const forBob = await bob.write(alice, 'between')
  assert.ok(forBob)

  await alice.sendRequests()
  assert.equal(alice.uploads[1]?.sent, alice.uploads[0]?.sent)
  assert.equal(alice.uploads[1]?.status, 200)
  assert.equal(alice.uploads[1]?.body['dev.latchkey.outcomes'][forBob.name], 'already_issued')
  assert.deepEqual(alice.uploads[1]?.body.one_time_key_counts, { signed_curve25519: 49 })

  const forCarol = await carol.write(alice, 'afterwards')
  assert.notEqual(forCarol?.key, forBob.key)
  await alice.catchUp()
  assert.deepEqual(alice.undecryptable, [])
  assert.deepEqual(
    alice.received.map(({ text }) => text),
    ['between', 'afterwards'],
  )
  const rest = await bob.session.claimMany(alice.userId, alice.deviceId, 49)
  assert.ok(rest.every(({ key }) => key !== forBob.key && key !== forCarol?.key))
})

test('a key that was claimed before a reset decrypts after it', async () => {
  using alice = await stored('reset-alice')
  await alice.catchUp()
  using bob = await ready('reset-bob')
  const claimed = await bob.startSession(alice)
  assert.ok(claimed)
  const reset = await alice.resetKeys()
  assert.deepEqual(reset.device_one_time_keys_count, { signed_curve25519: 0 })
  assert.equal(reset['dev.latchkey.withdrawn'].length, 49)
  assert.ok(!reset['dev.latchkey.withdrawn'].includes(claimed.name))

  await bob.send(alice, 'begun before the reset')
  await alice.catchUp()
  assert.deepEqual(
    alice.received.map(({ text }) => text),
    ['begun before the reset'],
  )
  assert.deepEqual(alice.lastUpload.body.one_time_key_counts, { signed_curve25519: 50 })
})

test('every upload of a phone restored from a backup is refused until a reset heals it', async () => {
  using alice = await stored('backup-alice')
  await alice.catchUp()
  using crowd = await ready('backup-crowd')
  const backup = await alice.backUp()

  // Forty keys are claimed and replaced by new ones, which the backup lacks.
  await crowd.session.claimMany(alice.userId, alice.deviceId, 40)
  await alice.catchUp()
  const replaced = new Map(Object.entries<{ key: string }>(JSON.parse(alice.lastUpload.sent).one_time_keys))
  assert.equal(replaced.size, 40)
  await alice.restoreFrom(backup)

  // Bob gets one of the ten keys that the backup still has; Carol gets a key that it lacks.
  using bob = await ready('backup-bob')
  const forBob = await bob.startSession(alice)
  assert.ok(forBob && !replaced.has(forBob.name))
  await crowd.session.claimMany(alice.userId, alice.deviceId, 9)
  using carol = await ready('backup-carol')
  const forCarol = await carol.write(alice, 'to a phone without the key')
  assert.ok(forCarol && replaced.get(forCarol.name)?.key === forCarol.key)

  const uploadsBefore = alice.uploads.length
  for (const _ of [1, 2, 3]) await alice.catchUp()
  assert.deepEqual(alice.received, [])
  assert.deepEqual(alice.undecryptable, [{ sender: carol.userId, reason: 'DecryptionFailure' }])
  const [warning = ''] = alice.warnings
  assert.match(warning, /MissingOneTimeKey/)
  assert.ok(warning.includes(`curve25519:${forCarol.key}`), warning)

  const refused = alice.uploads.slice(uploadsBefore)
  const [first] = refused
  assert.ok(first)
  assert.equal(refused.length, 3)
  for (const { sent, status } of refused)
    assert.deepEqual({ sent, status }, { sent: first.sent, status: 400 })
  const { oldKey, newKey } = parseAsMatrixRustSdk(first.body.error)
  const [name = ''] = /signed_curve25519:\S+/.exec(first.body.error) ?? []
  assert.equal(oldKey, replaced.get(name)?.key)
  assert.equal(newKey, JSON.parse(first.sent).one_time_keys[name].key)

  await alice.resetKeys()
  await alice.catchUp()
  const healed = alice.uploads.slice(uploadsBefore + 3)
  assert.equal(healed[0]?.sent, first.sent, 'the refused upload, unchanged')
  assert.deepEqual(
    healed.map(({ status }) => status),
    healed.map(() => 200),
  )
  assert.deepEqual(alice.lastUpload.body.one_time_key_counts, { signed_curve25519: 50 })

  using dave = await ready('backup-dave')
  await dave.write(alice, 'after the reset')
  await bob.send(alice, 'with a key claimed before the reset')
  await alice.write(carol, 'Carol, please try again')
  await carol.catchUp()
  assert.deepEqual(
    carol.received.map(({ text }) => text),
    ['Carol, please try again'],
  )
  await carol.write(alice, 'on the session that Alice began')
  await alice.catchUp()
  assert.deepEqual(
    alice.received.map(({ text }) => text),
    ['after the reset', 'with a key claimed before the reset', 'on the session that Alice began'],
  )
  assert.equal(alice.undecryptable.length, 1)
})

/** Parses the error as matrix-rust-sdk does: two parts at the semicolon, each a prefix and a signed key as JSON. */
function parseAsMatrixRustSdk(message: string): { oldKey: string; newKey: string } {
  assert.ok(message.startsWith('One time key'))
  const parts = message.split(';')
  assert.equal(parts.length, 2)
  const [old = '', fresh = ''] = parts
  const oldJson = old.slice(old.indexOf('Old key:')).replace('Old key:', '')
  const newJson = fresh.trim().replace('new key:', '').replaceAll("'", '"')
  const [oldKey, newKey] = [JSON.parse(oldJson), JSON.parse(newJson)]
  assert.ok(oldKey.signatures && newKey.signatures)
  return { oldKey: oldKey.key, newKey: newKey.key }
}
