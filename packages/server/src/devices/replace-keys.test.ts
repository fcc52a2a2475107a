/** Rules of a replacement of cross-signing keys, and of the name space they share with device IDs. */
import assert from 'node:assert/strict'
import test, { describe } from 'node:test'
import { MatrixError } from '../matrix-error.ts'
import type { CrossSigningKey, CrossSigningUsage } from './port.ts'
import { decideReplacement, type Replacement } from './replace-keys.ts'

function key(usage: CrossSigningUsage, publicKey: string, text = publicKey): CrossSigningKey {
  return { usage, publicKey, json: JSON.stringify({ usage, text }) }
}

const [MASTER, SELF, USER] = [key('master', 'M'), key('self_signing', 'S'), key('user_signing', 'U')]
const STORED = [MASTER, SELF, USER]
const NOTHING = { put: [], replaced: [], audience: undefined }

function masterOf(keys: readonly CrossSigningKey[]): string | undefined {
  return keys.find(({ usage }) => usage === 'master')?.publicKey
}

function decide(
  uploaded: readonly CrossSigningKey[],
  {
    stored = STORED,
    devices = [],
    seenMaster = masterOf(stored),
  }: {
    readonly stored?: readonly CrossSigningKey[]
    readonly devices?: readonly string[]
    readonly seenMaster?: string | undefined
  } = {},
): Replacement {
  return decideReplacement({ stored, deviceIds: new Set(devices) }, uploaded, seenMaster)
}

describe('a replacement of cross-signing keys', () => {
  const [newMaster, newSelf, newUser] = [
    key('master', 'M2'),
    key('self_signing', 'S2'),
    key('user_signing', 'U2'),
  ]
  const resigned = key('self_signing', 'S', 'signed by another master key')
  const rows: readonly (readonly [string, Replacement, Replacement])[] = [
    [
      'stores first keys, and everyone learns of them',
      decide(STORED, { stored: [] }),
      { put: STORED, replaced: [], audience: 'everyone' },
    ],
    ['changes nothing with the stored keys', decide(STORED), NOTHING],
    ['changes nothing without keys', decide([]), NOTHING],
    [
      'of the master key: its signatures fall',
      decide([newMaster]),
      { put: [newMaster], replaced: ['M'], audience: 'everyone' },
    ],
    [
      'of the self-signing key: everyone learns of it',
      decide([MASTER, newSelf]),
      { put: [newSelf], replaced: ['S'], audience: 'everyone' },
    ],
    [
      'of the user-signing key: its user alone learns of it',
      decide([newUser]),
      { put: [newUser], replaced: ['U'], audience: 'user' },
    ],
    [
      'of all: everyone learns of them',
      decide([newMaster, newSelf, newUser]),
      { put: [newMaster, newSelf, newUser], replaced: ['M', 'S', 'U'], audience: 'everyone' },
    ],
    [
      'of the text alone: signatures on the key stay',
      decide([resigned]),
      { put: [resigned], replaced: [], audience: 'everyone' },
    ],
  ]
  for (const [name, found, expected] of rows) test(name, () => assert.deepEqual(found, expected))
})

describe('a replacement is refused', () => {
  const refusals: readonly (readonly [string, () => unknown, RegExp])[] = [
    ['when another master key was seen', () => decide([USER], { seenMaster: 'OLD' }), /at the same time/],
    [
      'when no master key was seen, but there is one',
      () => decideReplacement({ stored: STORED, deviceIds: new Set() }, STORED, undefined),
      /at the same time/,
    ],
    [
      'when a master key was seen, but there is none',
      () => decide(STORED, { stored: [], seenMaster: 'M' }),
      /at the same time/,
    ],
    [
      'when a public key is a device ID',
      () => decide([key('user_signing', 'DEV')], { devices: ['DEV'] }),
      /"DEV" is the ID of one/,
    ],
    [
      'naming the first such key of the request',
      () =>
        decide([key('master', 'X'), key('self_signing', 'B'), key('user_signing', 'A')], {
          devices: ['A', 'B'],
        }),
      /"B"/,
    ],
    ['for the name of a device although the key is stored', () => decide([USER], { devices: ['U'] }), /"U"/],
    [
      'for the master key before the names',
      () => decide([USER], { devices: ['U'], seenMaster: 'OLD' }),
      /at the same time/,
    ],
  ]
  for (const [name, run, message] of refusals) {
    test(name, () =>
      assert.throws(
        run,
        (error) => error instanceof MatrixError && error.status === 403 && message.test(error.message),
      ),
    )
  }
})
