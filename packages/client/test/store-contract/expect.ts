/** The two assertions of the contract, for Node and browsers. */

/** Compares plain JSON by value; the order of members does not matter. */
export function equal(actual: unknown, expected: unknown): void {
  const [is, should] = [text(actual), text(expected)]
  if (is !== should) throw new Error(`expected ${excerpt(should)}, but it is ${excerpt(is)}`)
}

/** @param name of the error; its class differs across realms and bundles */
export async function rejects(promise: Promise<unknown>, name: string): Promise<void> {
  const error: unknown = await promise.then(
    () => undefined,
    (reason: unknown) => reason,
  )
  if (error === undefined) throw new Error(`expected ${name}, but it succeeded`)
  if (!(error instanceof Error) || error.name !== name) throw error
}

function text(value: unknown): string {
  return JSON.stringify(value, (_key, part: unknown) =>
    typeof part === 'object' && part !== null && !Array.isArray(part)
      ? Object.fromEntries(Object.entries(part).sort(([a], [b]) => (a < b ? -1 : 1)))
      : part,
  )
}

function excerpt(long: string): string {
  return long.length > 300 ? `${long.slice(0, 300)}... (${long.length} characters)` : long
}
