/** The stored codes of the states of keys (pool/key.ts), the same in every store. */
import type { KeyState } from '../pool/key.ts'

export const STATE_CODE = {
  available: 0,
  issued: 1,
  withdrawn: 2,
  evicted: 3,
  purged: 4,
} as const satisfies Record<KeyState, number>

const STATES: readonly KeyState[] = ['available', 'issued', 'withdrawn', 'evicted', 'purged']

export function stateOf(code: number): KeyState {
  const state = STATES[code]
  if (state === undefined) throw new Error(`unknown key state ${code} in the database`)
  return state
}
