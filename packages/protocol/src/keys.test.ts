/** Identifiers, key material and the pool digest. */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  type Algorithm,
  base64Url,
  digestShare,
  emptyDigest,
  type KeyId,
  type KeyMaterial,
  materialOf,
  mixIn,
  parseDeviceId,
  parseKeyName,
  parseUserId,
  utf8Length,
} from './index.ts'

const sha256 = (text: string): Uint8Array => createHash('sha256').update(text).digest()

test('a key name has exactly two non-empty parts', () => {
  assert.deepEqual(parseKeyName('signed_curve25519:AAAAHg'), {
    algorithm: 'signed_curve25519',
    keyId: 'AAAAHg',
  })
  for (const text of ['', ':', 'a', 'a:', ':b', 'a:b:c', 'a:b:']) assert.equal(parseKeyName(text), undefined)
})

test('a user ID has a sigil, a localpart and a server name, and at most 255 bytes', () => {
  assert.equal(parseUserId('@alice:example.org:8448')?.serverName, 'example.org:8448')
  for (const text of ['', 'alice:x', '@:x', '@alice', '@alice:', `@${'ä'.repeat(126)}:xx`])
    assert.equal(parseUserId(text), undefined)
  assert.notEqual(parseUserId(`@${'ä'.repeat(126)}:x`), undefined)
  assert.equal(parseDeviceId(''), undefined)
  assert.equal(parseDeviceId('D'.repeat(256)), undefined)
})

test('the UTF-8 length is that of the encoder', () => {
  fc.assert(
    fc.property(fc.string({ unit: 'binary' }), (text) =>
      assert.equal(utf8Length(text), Buffer.byteLength(text)),
    ),
  )
})

test('32 bytes are the same key in every base64 spelling; different bytes are a different key', () => {
  const bytes = fc.uint8Array({ minLength: 32, maxLength: 32 })
  fc.assert(
    fc.property(bytes, bytes, fc.nat(3), (a, b, spareBits) => {
      const padded = Buffer.from(a).toString('base64')
      const plain = padded.slice(0, 43)
      assert.equal(materialOf(plain), plain)
      assert.equal(materialOf(padded), plain)
      assert.equal(materialOf({ key: Buffer.from(a).toString('base64url'), signatures: {} }), plain)
      const alphabet = 'ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/'
      const noisy = plain.slice(0, 42) + alphabet.charAt(alphabet.indexOf(plain.charAt(42)) + spareBits)
      assert.equal(materialOf(noisy), plain)
      assert.equal(materialOf(Buffer.from(b).toString('base64')) === plain, Buffer.compare(a, b) === 0)
    }),
  )
})

test('anything other than 32 bytes of base64 is compared unchanged', () => {
  for (const text of ['', 'curve25519+key', 'A'.repeat(44), 'A'.repeat(42), `${'A'.repeat(43)}==`])
    assert.equal(materialOf(text), text)
})

test('the digest does not depend on order, and removing a key undoes adding it', () => {
  const names = fc.uniqueArray(fc.string({ minLength: 1 }), { minLength: 1, maxLength: 20 })
  fc.assert(
    fc.property(names, fc.nat(), (ids, salt) => {
      const share = (id: string): Uint8Array =>
        digestShare(sha256, 'signed_curve25519' as Algorithm, id as KeyId, `${id}${salt}` as KeyMaterial)
      const forwards = emptyDigest()
      for (const id of ids) mixIn(forwards, share(id))
      const backwards = emptyDigest()
      for (const id of ids.toReversed()) mixIn(backwards, share(id))
      assert.deepEqual(forwards, backwards)
      for (const id of ids) mixIn(forwards, share(id))
      assert.deepEqual(forwards, emptyDigest())
    }),
  )
})

test('the digest of one key is SHA-256 of its name, NUL and its material', () => {
  const digest = emptyDigest()
  mixIn(digest, digestShare(sha256, 'a' as Algorithm, 'b' as KeyId, 'c' as KeyMaterial))
  assert.equal(base64Url(digest), createHash('sha256').update('a:b\0c').digest('base64url'))
})
