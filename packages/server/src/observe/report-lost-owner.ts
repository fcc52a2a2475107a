/** The log entry of a server that is no longer the owner of its database (store/sqlite/owner.ts). */
import type { FastifyBaseLogger } from 'fastify'

export function reportLostOwner(log: FastifyBaseLogger, directory: string): void {
  log.error(
    { directory },
    `Another Latchkey process has opened the database in ${directory}, so this one stops: its last writes are stored, ` +
      'and everything that waits is answered 503. Run one server per data directory, do not delete lock.db, and do ' +
      'not mount the directory on two machines.',
  )
}
