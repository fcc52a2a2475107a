/** Suggests the known name closest to a mistyped one. */

/** Returns ` Did you mean X?`, or an empty string if no candidate is close. */
export function didYouMean(name: string, candidates: readonly string[]): string {
  const nearest = nearestName(name, candidates)
  return nearest === undefined ? '' : ` Did you mean ${nearest}?`
}

function nearestName(name: string, candidates: readonly string[]): string | undefined {
  // A known key in the wrong section: `keys_per_request` for `limits.keys_per_request`.
  const lastPart = (path: string): string | undefined => path.split('.').at(-1)
  const elsewhere = candidates.filter((candidate) => lastPart(candidate) === lastPart(name))
  if (elsewhere.length === 1) return elsewhere[0]
  const [nearest] = candidates
    .map((candidate) => ({ candidate, distance: editDistance(name.toLowerCase(), candidate.toLowerCase()) }))
    .filter(({ candidate, distance }) => distance <= Math.max(2, Math.floor(candidate.length / 4)))
    .sort((a, b) => a.distance - b.distance)
  return nearest?.candidate
}

const MAX_COMPARED = 100

/** Levenshtein distance. Bounds the compared length of `a`, which may come from a user. */
function editDistance(a: string, b: string): number {
  let previous = Array.from({ length: b.length + 1 }, (_, column) => column)
  for (let row = 0; row < Math.min(a.length, MAX_COMPARED); row++) {
    const current = [row + 1]
    for (let column = 0; column < b.length; column++) {
      const replaced = (previous[column] ?? 0) + (a[row] === b[column] ? 0 : 1)
      current.push(Math.min(replaced, (previous[column + 1] ?? 0) + 1, (current[column] ?? 0) + 1))
    }
    previous = current
  }
  return previous[b.length] ?? 0
}
