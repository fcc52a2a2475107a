/** Paths below `/user/:userId` are accessible to that user only. */
import { forbidden, quoted } from '../../matrix-error.ts'
import type { Session } from '../../session.ts'

/** @throws {MatrixError} 403 M_FORBIDDEN for another user's path. */
export function requireOwnUser(session: Session, userId: string | undefined): void {
  if (userId === session.userId) return
  throw forbidden(
    `The path names ${quoted(userId ?? '')}; expected the caller's own user ID, ${quoted(session.userId)}.`,
  )
}
