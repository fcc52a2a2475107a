/** The code by which a key's state is stored, the same in every store (pool/key.ts). */
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
  if (state === undefined) throw new Error(`the database holds an unknown key state ${code}`)
  return state
}
