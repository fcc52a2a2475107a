/**
 * How many sessions of user-interactive authentication are kept (issue 11, B3). Over the bound of its owner, the oldest
 * of the same owner go. Over the bound in all, the oldest of the owner with the most go: an owner with one session
 * loses it only when every other owner has one. Sessions without an account are counted apart from those of users.
 */
import type { AuthOwner } from './port.ts'

/** A network has more than the rate limit lets one address begin in the life of a session. */
const PER_OWNER = { user: 10, network: 256 } as const
const IN_ALL = 10_000

/** The numbers to drop, oldest first. The counts include the session that is added. */
export function sessionsToDrop(
  kind: AuthOwner['kind'],
  counts: { readonly ofOwner: number; readonly ofKind: number },
): { readonly ofOwner: number; readonly ofLargest: number } {
  const ofOwner = Math.max(0, counts.ofOwner - PER_OWNER[kind])
  return { ofOwner, ofLargest: Math.max(0, counts.ofKind - ofOwner - IN_ALL) }
}
