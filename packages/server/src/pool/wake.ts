/**
 * When a device's sync is woken (key-pool.md "Signals"): its count fell to half of the acknowledged count, and at each
 * further halving, and at zero; a fallback key was used for the first time; keys left otherwise (reset, heal, purge).
 *
 * Acknowledged counts are those that the device knows: of upload and reset answers, of a sync answer once the device
 * presents its token, of the wake itself, and 0 after a purge.
 */

/** Whether a count fell so far below the acknowledged one that the device is woken. */
export function reachedLowWater(acknowledged: number, count: number): boolean {
  return count < acknowledged && count <= Math.floor(acknowledged / 2)
}

/** The acknowledged count after keys were issued: a wake at low water acknowledges the count that it announces. */
export function acknowledgedAfterIssue(acknowledged: number, count: number): number {
  return reachedLowWater(acknowledged, count) ? count : acknowledged
}

/** The acknowledged count once the device presented the token of an answer. A wake since may have announced fewer. */
export function acknowledgedByToken(acknowledged: number, advertised: number): number {
  return Math.min(acknowledged, advertised)
}
