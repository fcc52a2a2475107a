/** Faults of a store that an operator can fix. */
import type { DeviceId, UserId } from '@latchkey/protocol'

/** The message says how to fix the fault. */
export class StoreError extends Error {
  override readonly name = 'StoreError'
}

export function unknownDevice(userId: UserId, deviceId: DeviceId): StoreError {
  return new StoreError(`${userId} has no device ${deviceId}.`)
}

export function unusableWitness(directory: string, error: unknown, cause = error): StoreError {
  return new StoreError(
    `The fence cannot keep its witness in ${directory}: ${String(cause)}. Fix it or set another --fence-dir.`,
    { cause: error },
  )
}
