/**
 * When a device's sync is woken (key-pool.md "Signals"): its count fell to half of what it knows, and at each further
 * halving, and at zero; a fallback key was used for the first time; keys left otherwise (reset, heal, purge).
 *
 * What a device knows are acknowledged counts: those of upload and reset answers, and of a sync answer once the device
 * presents its token.
 */

/** Whether a count fell so far below the acknowledged one that the device is woken. */
export function reachedLowWater(acknowledged: number, count: number): boolean {
  return count < acknowledged && count <= Math.floor(acknowledged / 2)
}
