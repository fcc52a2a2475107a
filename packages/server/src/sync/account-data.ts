/** Limits of a user's global account data, in number and in bytes: a first sync carries all of it. */
import { utf8Length } from '@latchkey/protocol'
import { invalidParam, tooLarge } from '../matrix-error.ts'

export type AccountDataLimits = {
  readonly accountDataTypesPerUser: number
  /** Types and contents. */
  readonly accountDataTotalBytes: number
}

/**
 * @param others the user's account data of other types
 * @throws {MatrixError} 400 M_INVALID_PARAM over the number of types, 413 M_TOO_LARGE over the bytes.
 */
export function enforceAccountDataLimits(
  others: { readonly count: number; readonly bytes: number },
  { type, content }: { readonly type: string; readonly content: string },
  { accountDataTypesPerUser, accountDataTotalBytes }: AccountDataLimits,
): void {
  if (others.count >= accountDataTypesPerUser) {
    throw invalidParam(
      `This account has ${accountDataTypesPerUser} types of account data, the most it may have.`,
    )
  }
  const bytes = others.bytes + utf8Length(type) + utf8Length(content)
  if (bytes > accountDataTotalBytes) {
    throw tooLarge(
      `All account data of this account would have ${bytes} bytes; at most ${accountDataTotalBytes} are kept.`,
    )
  }
}
