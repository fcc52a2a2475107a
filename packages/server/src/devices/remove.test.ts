/** Rules of a removal: which devices, and what is deleted with them. */
import assert from 'node:assert/strict'
import test from 'node:test'
import type { DeviceId } from '@latchkey/protocol'
import type { DeviceRef } from '../session.ts'
import { type Choice, chosenDevices, DELETED_WITH_DEVICE, EMPTIED_WITH_DEVICE } from './remove.ts'

const DEVICES = ['A', 'B', 'C'].map((id, place) => ({
  deviceRef: (place + 1) as DeviceRef,
  deviceId: id as DeviceId,
}))
const ids = (...names: string[]): DeviceId[] => names as DeviceId[]

const rows: readonly (readonly [string, Choice, number[]])[] = [
  ['named devices are removed', { kind: 'named', deviceIds: ids('C', 'A') }, [1, 3]],
  ['unknown IDs are ignored', { kind: 'named', deviceIds: ids('X', 'B') }, [2]],
  ['no names remove nothing', { kind: 'named', deviceIds: [] }, []],
  ['a name given twice removes one device', { kind: 'named', deviceIds: ids('B', 'B') }, [2]],
  ['all are removed at a logout of all devices', { kind: 'all' }, [1, 2, 3]],
  ['a change of password removes all but its own device', { kind: 'others', than: 2 as DeviceRef }, [1, 3]],
]
for (const [name, choice, expected] of rows)
  test(name, () => assert.deepEqual(chosenDevices(DEVICES, choice), expected))

test('a removed device leaves no messages, no memory of requests, no signatures and no earlier identities', () =>
  assert.deepEqual(DELETED_WITH_DEVICE.toSorted(), [
    'conflicts',
    'former_identities',
    'inbox',
    'reset_answers',
    'sent_transactions',
    'signatures',
  ]))

test('the row of a removed device has no name, no address and no keys', () =>
  assert.deepEqual(EMPTIED_WITH_DEVICE.toSorted(), [
    'curve25519',
    'device_keys',
    'display_name',
    'ed25519',
    'last_seen_ip',
    'last_seen_ts',
  ]))
