import assert from 'node:assert/strict'
import test from 'node:test'
import { decideRenaming } from './rename.ts'

const rows = [
  ['a device that does not exist is not found', undefined, { found: false, changesList: false }],
  ['a new name changes the device list', { displayName: 'old' }, { found: true, changesList: true }],
  ['a first name changes the device list', {}, { found: true, changesList: true }],
  ['the same name changes nothing', { displayName: 'new' }, { found: true, changesList: false }],
] as const
for (const [name, device, expected] of rows)
  test(name, () => assert.deepEqual(decideRenaming(device, 'new'), expected))
