/**
 * Sessions by token hash: every request reads one. The transaction that ends a session drops its entry, so that no
 * entry outlives the commit; after a rollback the next request reads the session again. Unknown tokens are not kept,
 * because another process may add accounts.
 */
import { LRUCache } from 'lru-cache'
import type { Session, TokenHash } from '../../session.ts'

/** About 300 bytes each. */
const MAX_SESSIONS = 50_000

export class SessionCache {
  readonly #byToken = new LRUCache<TokenHash, Session>({ max: MAX_SESSIONS })

  get(tokenHash: TokenHash): Session | undefined {
    return this.#byToken.get(tokenHash)
  }

  /** Keeps a session that was read outside any transaction. */
  keep(session: Session): void {
    this.#byToken.set(session.tokenHash, session)
  }

  forget(tokenHash: TokenHash): void {
    this.#byToken.delete(tokenHash)
  }
}
