/**
 * Long walks in pieces: between two pieces the event loop serves everyone else (issue 11, C1). One walk continues per
 * turn of the loop, in order of arrival: ten walks together delay another request by one piece, not by ten.
 */
const waiting: (() => void)[] = []

/** Resolves in a later turn of the event loop, when all walks that asked earlier have continued. */
export function nextTurn(): Promise<void> {
  return new Promise((resolve) => {
    if (waiting.push(resolve) === 1) setImmediate(continueOne)
  })
}

function continueOne(): void {
  waiting.shift()?.()
  if (waiting.length > 0) setImmediate(continueOne)
}

/** The items in pieces of at most `perTurn`, each in its own turn. The first one comes at once. */
export async function* inTurns<T>(items: readonly T[], perTurn: number): AsyncGenerator<readonly T[]> {
  for (let from = 0; from < items.length; from += perTurn) {
    if (from > 0) await nextTurn()
    yield items.slice(from, from + perTurn)
  }
}
