/** Devices that are removed or restored while their pools are stale, on a store whose fence can be raised. */
import assert from 'node:assert/strict'
import type { Session } from '../../src/session.ts'
import type { Store } from '../../src/store.ts'
import { login, poolStatus, USER } from '../store-contract/test-device.ts'
import { keys, NOW, OTHER, sync, upload } from './store-calls.ts'

/**
 * A device that was removed before the fence was raised has no keys, so its next login purges nothing. One that is
 * removed afterwards is purged for the fence and then for its removal.
 */
export async function assertRestoredDevices(store: Store): Promise<void> {
  const witness = await login(store, NOW)
  const raise = (epoch: string): Promise<unknown> => sync(store, witness, { epoch, position: 1 })
  const remove = (device: Session): Promise<void> => store.devices.remove(device, [OTHER], NOW)
  const generationOf = async (device: Session): Promise<number> =>
    (await poolStatus(store, device)).generation

  const first = await login(store, NOW, USER, OTHER)
  await upload(store, first, keys(0, 2))
  const before = await generationOf(first)
  await remove(first)
  await raise('NeverHad')
  const restored = await login(store, NOW, USER, OTHER)
  assert.equal(await generationOf(restored), before + 1)
  await upload(store, restored, keys(2, 4))
  assert.equal(await generationOf(restored), before + 1)

  await raise('NeverHadEither')
  await remove(restored)
  const again = await login(store, NOW, USER, OTHER)
  assert.equal(await generationOf(again), before + 3)
}
