/** Paths below `/user/:userId`: everyone's own alone. */
import { forbidden, quoted } from '../../matrix-error.ts'
import type { Session } from '../../session.ts'

/** @throws {MatrixError} 403 M_FORBIDDEN for somebody else's path. */
export function requireOwnUser(session: Session, userId: string | undefined): void {
  if (userId === session.userId) return
  throw forbidden(
    `The path names ${quoted(userId ?? '')}; expected the caller's own user ID, ${quoted(session.userId)}.`,
  )
}
