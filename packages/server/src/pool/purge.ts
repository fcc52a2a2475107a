/**
 * Purges of a device's pools: the keys that leave, by cause (key-pool.md). Purged material never enters the pool
 * again. Every purge moves the device's version and generation by one, in `DevicePools` or in the SQL of a store's
 * purge-pools.ts, which does the same to many devices without loading a key. A heal is not a purge of the device:
 * heal.ts.
 */

export type PurgeRule = {
  /** The fallback keys leave too. */
  readonly fallbackKeys: boolean
  /**
   * Keys issued before are no longer shown to the device (`GET keys/pool`): another installation uses it from now on.
   */
  readonly hidesIssued: boolean
}

/** A device with other identity keys is another installation: the private halves of the old keys are lost. */
export const IDENTITY_PURGE: PurgeRule = { fallbackKeys: true, hidesIssued: true }

/** A removed device. Its memory stays: if its ID is used again, keys that were issued must not be issued again. */
export const REMOVAL_PURGE: PurgeRule = { fallbackKeys: true, hidesIssued: true }

/**
 * A device met for the first time since the fence was raised (fence/judge.ts): the database may
 * lack issues of keys. The device is the same installation.
 *
 * @param dropsFallbackKeys so much may be lost that a fallback key may be older than any client keeps its private half
 */
export function fencePurge(dropsFallbackKeys: boolean): PurgeRule {
  return { fallbackKeys: dropsFallbackKeys, hidesIssued: false }
}
