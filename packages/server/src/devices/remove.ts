/**
 * Removal of devices: by logout, by deletion, by a change of password. The device's row and the log of its pools stay,
 * marked as removed: they keep issued keys from being issued again if the device ID is used once more
 * (accounts/open-session.ts). Everything in `DELETED_WITH_DEVICE` and its pools end in the same transaction.
 */
import type { DeviceId } from '@latchkey/protocol'
import type { DeviceRef } from '../session.ts'

export type ExistingDevice = { readonly deviceRef: DeviceRef; readonly deviceId: DeviceId }

/** Which of a user's devices are removed. Unknown IDs are ignored. */
export type Choice =
  | { readonly kind: 'named'; readonly deviceIds: readonly DeviceId[] }
  | { readonly kind: 'all' }
  | { readonly kind: 'others'; readonly than: DeviceRef }

export function chosenDevices(devices: readonly ExistingDevice[], choice: Choice): readonly DeviceRef[] {
  const named = choice.kind === 'named' ? new Set(choice.deviceIds) : undefined
  const isChosen = ({ deviceRef, deviceId }: ExistingDevice): boolean => {
    if (choice.kind === 'others') return deviceRef !== choice.than
    return named?.has(deviceId) ?? true
  }
  return devices.filter(isChosen).map((device) => device.deviceRef)
}

/**
 * Deleted with a device, besides its access tokens and the keys of its pools: signatures on its keys say nothing about
 * another device with its ID, those by it vouch no longer for the master key, and a device that returns has neither
 * messages nor memory of requests.
 */
export const DELETED_WITH_DEVICE = [
  'signatures',
  'former_identities',
  'inbox',
  'sent_transactions',
  'reset_answers',
  'conflicts',
] as const
export type DeletedWithDevice = (typeof DELETED_WITH_DEVICE)[number]

/** Emptied in the row of a removed device: everything but its ID, its times and its counters. */
export const EMPTIED_WITH_DEVICE = [
  'display_name',
  'last_seen_ts',
  'last_seen_ip',
  'device_keys',
  'ed25519',
  'curve25519',
] as const
