/** A fault of a store that an operator can fix; its message says how. */
export class StoreError extends Error {
  override readonly name = 'StoreError'
}
