/** Rules of added signatures: which counts, what it replaces, who learns of it. */
import assert from 'node:assert/strict'
import test from 'node:test'
import type { UserId } from '@latchkey/protocol'
import type { UserRef } from '../session.ts'
import { decideSignatures, type SignatureFacts } from './add-signatures.ts'
import type { KeySignature } from './port.ts'

const [ALICE, BOB] = [1 as UserRef, 2 as UserRef]

/** A signature in the form `signed key < signing key: text`. */
function signature(keyId: string, by: string, text: string): KeySignature {
  return { keyId, signer: '@alice:test.example' as UserId, signerKeyId: `ed25519:${by}`, signature: text }
}

const [first, second, other] = [signature('K', 'A', '1'), signature('K', 'A', '2'), signature('K', 'B', '3')]
const EXISTING: SignatureFacts = { ofTarget: new Set(['K', 'L']), ofSigner: new Set(['A', 'B']) }
const elsewhere = signature('L', 'A', '4')

const rows = [
  ['on own keys the last one of each signing key counts', ALICE, [first, second, other], [second, other]],
  ['on another user’s key the last one of all counts', BOB, [first, second, other], [other]],
  ['on several keys each has its own', BOB, [first, elsewhere], [first, elsewhere]],
  ['own keys keep the signatures of several devices', ALICE, [first, other], [first, other]],
  ['none stay none', ALICE, [], []],
] as const
for (const [name, target, signatures, put] of rows)
  test(name, () => assert.deepEqual(decideSignatures(ALICE, target, signatures, EXISTING).put, put))

test('a signature on an own key leaves others in place, and everyone learns of it', () => {
  const { replacesOthers, audience } = decideSignatures(ALICE, ALICE, [first], EXISTING)
  assert.deepEqual({ replacesOthers, audience }, { replacesOthers: false, audience: 'everyone' })
})

test('a signature on another user’s key replaces the signer’s others, and the signer alone learns of it', () => {
  const { replacesOthers, audience } = decideSignatures(ALICE, BOB, [first], EXISTING)
  assert.deepEqual({ replacesOthers, audience }, { replacesOthers: true, audience: 'user' })
})

test('a signature on or by a key that was removed since it was checked is not stored', () => {
  const without = (removed: Partial<SignatureFacts>): unknown =>
    decideSignatures(ALICE, ALICE, [first, other, elsewhere], { ...EXISTING, ...removed }).put
  assert.deepEqual(without({ ofTarget: new Set(['L']) }), [elsewhere])
  assert.deepEqual(without({ ofSigner: new Set(['B']) }), [other])
})
