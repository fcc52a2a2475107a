/** The log entry of a server that has lost its database (store/sqlite/owner.ts). */
import type { FastifyBaseLogger } from 'fastify'
import type { Loss } from '../store/sqlite/owner.ts'

export function reportLostOwner(log: FastifyBaseLogger, directory: string, loss: Loss): void {
  const cause =
    loss === 'another owner'
      ? `Another Latchkey process has opened the database in ${directory}`
      : `Files of the database in ${directory} (latchkey.db, its -wal or its -shm) were deleted, moved or replaced`
  log.error(
    { directory },
    `${cause}, so this server stops: its last writes are stored, and everything that waits is answered 503. ` +
      'Run one server per data directory, change its files only while it is stopped, do not delete lock.db, and do ' +
      'not mount the directory on two machines.',
  )
}
