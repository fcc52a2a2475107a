/**
 * Device lists without rooms: a user who asks for keys of others tracks them. A name without an account is awaited: if
 * an account of that name is created, its first keys are a change for those who wait.
 */
import type { UserId } from '@latchkey/protocol'
import type { UserRef } from '../session.ts'

/** Names without an account that one user may await. Above it the oldest are forgotten. */
export const MAX_AWAITED = 1000

/** A user ID that was asked for, in the order of the request. */
export type AskedUser =
  | { readonly kind: 'account'; readonly userRef: UserRef; readonly tracked: boolean }
  | { readonly kind: 'name'; readonly userId: UserId; readonly awaited: boolean }

export type Tracking = {
  readonly targets: readonly UserRef[]
  /** In the order in which they are forgotten above `MAX_AWAITED`: that of their UTF-8 bytes, on every store. */
  readonly names: readonly UserId[]
}

/** The rows to add so that `observer` learns of changes. Users learn of their own changes without them. */
export function decideTracking(observer: UserRef, asked: readonly AskedUser[]): Tracking {
  const names = asked.filter((user) => user.kind === 'name').slice(0, MAX_AWAITED)
  return {
    targets: asked.flatMap((user) =>
      user.kind === 'account' && !user.tracked && user.userRef !== observer ? [user.userRef] : [],
    ),
    names: names
      .filter(({ awaited }) => !awaited)
      .map(({ userId }) => userId)
      .sort((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b))),
  }
}
