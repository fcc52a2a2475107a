/** A fault of a store that an operator can mend; its message says how. */
export class StoreError extends Error {
  override readonly name = 'StoreError'
}
