/** The number of devices that one user may have. */
import { invalidParam } from '../matrix-error.ts'

export type DeviceLimits = { readonly devicesPerUser: number }

/** @throws {MatrixError} 400 when a user with `count` devices may not have another one. */
export function enforceDeviceLimit(count: number, { devicesPerUser }: DeviceLimits): void {
  if (count < devicesPerUser) return
  throw invalidParam(`This account has ${devicesPerUser} devices, the most it may have: log one out first.`)
}
