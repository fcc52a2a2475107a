/** How a rule refuses a request: it throws a MatrixError in memory, which becomes the decision's refusal. */
import { MatrixError } from '../matrix-error.ts'
import { type Decision, type DeviceChanges, NO_CHANGES } from './port.ts'

/** A refusal of which something is remembered. */
export class RememberedRefusal extends Error {
  readonly refusal: MatrixError
  readonly changes: DeviceChanges

  constructor(refusal: MatrixError, changes: DeviceChanges) {
    super(refusal.message)
    this.refusal = refusal
    this.changes = changes
  }
}

/** Runs the rules of a request; what they refuse is a decision too. Anything else that is thrown is a bug. */
export function decided<Answer>(rules: () => Decision<Answer>): Decision<Answer> {
  try {
    return rules()
  } catch (error) {
    if (error instanceof RememberedRefusal) {
      return { kind: 'refusal', refusal: error.refusal, changes: error.changes }
    }
    if (error instanceof MatrixError) return { kind: 'refusal', refusal: error, changes: NO_CHANGES }
    throw error
  }
}
