/**
 * Settings of the key pools, with the defaults of key-pool.md ("Upload", "Claim").
 */

export type PoolPolicy = {
  /** An uploaded ID that is available with other material: refuse (400), or purge the pool on the second try. */
  readonly onConflict: 'reject' | 'heal'
  /** The order in which keys leave: MSC4225's upload order, or MSC4162's lowest key ID first. */
  readonly claimOrder: 'upload' | 'key_id'
  /** Refuse keys whose signature by the device does not verify. */
  readonly verifySignatures: boolean
  readonly keysPerRequest: number
  /** Available one-time keys per pool; over it the oldest are evicted. */
  readonly keysPerPool: number
  readonly algorithmsPerDevice: number
  /**
   * Budgets of 24 hours (daily-budget.ts): keys of a device, keys and their bytes of all devices of a user, heals of a
   * device; 0 means unlimited.
   */
  readonly keysPerDeviceAndDay: number
  readonly keysPerUserAndDay: number
  readonly keyBytesPerUserAndDay: number
  readonly healsPerDeviceAndDay: number
  readonly keyIdBytes: number
  /** Bytes of one key object of `curve25519` and `signed_curve25519`; `otherKeyObjectBytes` of other algorithms. */
  readonly keyObjectBytes: number
  readonly otherKeyObjectBytes: number
  readonly devicesPerClaim: number
}

export const DEFAULT_POOL_POLICY: PoolPolicy = {
  onConflict: 'heal',
  claimOrder: 'upload',
  verifySignatures: false,
  keysPerRequest: 500,
  keysPerPool: 500,
  algorithmsPerDevice: 16,
  keysPerDeviceAndDay: 5000,
  keysPerUserAndDay: 20_000,
  keyBytesPerUserAndDay: 16 * 1024 * 1024,
  healsPerDeviceAndDay: 3,
  keyIdBytes: 255,
  keyObjectBytes: 4 * 1024,
  otherKeyObjectBytes: 16 * 1024,
  devicesPerClaim: 10_000,
}
