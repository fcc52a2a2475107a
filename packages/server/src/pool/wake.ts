/**
 * When a device's sync is woken (key-pool.md "Signals"): its count fell to half of what it was last told, and at each
 * further halving, and at zero; a fallback key was used for the first time; keys left otherwise (reset, heal, purge).
 */

/** Has a count fallen so far that the device must hear of it? `told` is the count it knows. */
export function reachedLowWater(told: number, count: number): boolean {
  return count < told && count <= Math.floor(told / 2)
}
