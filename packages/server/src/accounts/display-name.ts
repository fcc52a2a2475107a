/** Names that users give their devices. */
import { MatrixError } from '../matrix-error.ts'

/** The limit of other servers. */
const MAX_DISPLAY_NAME_LENGTH = 100

/** @throws {MatrixError} 400 M_TOO_LARGE, the status and code that peers answer. */
export function requireDisplayName(displayName: string): string {
  if (displayName.length > MAX_DISPLAY_NAME_LENGTH) {
    throw new MatrixError(
      400,
      'M_TOO_LARGE',
      `The device's display name has ${displayName.length} characters; at most ${MAX_DISPLAY_NAME_LENGTH} are kept.`,
    )
  }
  return displayName
}
