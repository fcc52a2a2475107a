/** Bounds of waiting syncs. */
import assert from 'node:assert/strict'
import test, { describe } from 'node:test'
import { MatrixError } from '../matrix-error.ts'
import type { DeviceRef, UserRef } from '../session.ts'
import { SHORTEST_WAIT_MS, type WaitingSync, WaitPlaces } from './wait-places.ts'

const LIMITS = { waitingSyncs: 6, waitingSyncsPerUser: 4, waitingSyncsPerDevice: 2 }

class Syncs {
  readonly places: WaitPlaces
  readonly ended: string[] = []

  constructor(limits = LIMITS) {
    this.places = new WaitPlaces(limits)
  }

  /** A sync of device `2` of user `1` is `1.2`; one that is ended at once leaves. */
  wait(name: string): WaitingSync {
    const [user = '', device = ''] = name.split('.')
    const sync: WaitingSync = {
      userRef: Number(user) as UserRef,
      deviceRef: Number(user + device) as DeviceRef,
      endAfter: (ms) => {
        this.ended.push(`${name} after ${ms}`)
        if (ms === 0) this.places.leave(sync)
      },
    }
    this.places.take(sync)
    return sync
  }

  refuses(name: string, status: number): void {
    const { count } = this.places
    assert.throws(
      () => this.wait(name),
      (error) =>
        error instanceof MatrixError && error.status === status && Number(error.extra['retry_after_ms']) > 0,
    )
    assert.equal(this.places.count, count)
  }
}

describe('a waiting sync', () => {
  test('above the bound of its device makes the oldest there give way after a shortest wait', () => {
    const syncs = new Syncs()
    for (const name of ['1.1', '1.1', '2.1']) syncs.wait(name)
    assert.deepEqual(syncs.ended, [])
    syncs.wait('1.1')
    assert.deepEqual(syncs.ended, [`1.1 after ${SHORTEST_WAIT_MS}`])
  })

  test('above the bound of its user makes the oldest there give way', () => {
    const syncs = new Syncs()
    for (const name of ['1.1', '1.2', '1.3', '1.4', '1.5']) syncs.wait(name)
    assert.deepEqual(syncs.ended, [`1.1 after ${SHORTEST_WAIT_MS}`])
  })

  test('at twice the bound of its device or user is refused until one leaves', () => {
    const ofDevice = new Syncs()
    const [first] = [ofDevice.wait('1.1'), ofDevice.wait('1.1'), ofDevice.wait('1.1'), ofDevice.wait('1.1')]
    assert.equal(ofDevice.ended.length, 2, 'each newer one ends another')
    ofDevice.refuses('1.1', 429)
    ofDevice.wait('1.2')
    ofDevice.places.leave(first)
    ofDevice.wait('1.1')
    const ofUser = new Syncs({ ...LIMITS, waitingSyncs: 100 })
    for (let n = 0; n < 8; n++) ofUser.wait(`1.${n}`)
    ofUser.refuses('1.9', 429)
  })

  test('takes the place of the user with the most when all places are taken', () => {
    const syncs = new Syncs()
    for (const name of ['1.1', '2.1', '2.2', '2.3', '3.1', '3.2']) syncs.wait(name)
    syncs.wait('4.1')
    assert.deepEqual(syncs.ended, ['2.1 after 0'])
    assert.equal(syncs.places.count, LIMITS.waitingSyncs)
    syncs.refuses('2.1', 503)
    syncs.refuses('1.1', 503)
  })

  test('leaves once, and a user without syncs leaves nothing behind', () => {
    const syncs = new Syncs()
    const sync = syncs.wait('1.1')
    syncs.places.leave(sync)
    syncs.places.leave(sync)
    assert.equal(syncs.places.count, 0)
  })
})

test('1 000 random waits of few users never exceed the total, and leave no count behind', () => {
  const syncs = new Syncs()
  const open = new Map<string, WaitingSync[]>()
  let seed = 11
  const random = (below: number): number => (seed = (seed * 48_271) % 2_147_483_647) % below
  for (let step = 0; step < 1000; step++) {
    const name = `${random(4)}.${random(3)}`
    const own = open.get(name) ?? []
    if (random(3) === 0) {
      const sync = own.shift()
      if (sync !== undefined) syncs.places.leave(sync)
    } else {
      try {
        open.set(name, [...own, syncs.wait(name)])
      } catch (error) {
        assert.ok(error instanceof MatrixError)
      }
    }
    assert.ok(syncs.places.count <= LIMITS.waitingSyncs)
  }
  for (const sync of [...open.values()].flat()) syncs.places.leave(sync)
  assert.equal(syncs.places.count, 0)
})
