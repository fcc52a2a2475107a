/** Reports events of the rollback fence in the log and the metrics. Raising it is Latchkey's most severe log entry. */
import type { FastifyBaseLogger } from 'fastify'
import type { OnFence } from '../fence/events.ts'
import type { Metrics } from './metrics.ts'

export function reportFence(log: FastifyBaseLogger, metrics: Metrics | undefined): OnFence {
  return (event) => {
    switch (event.kind) {
      case 'raised': {
        const { number, reason, droppedFallbackKeys } = event
        metrics?.fence({ number, raisedHere: true })
        log.error(
          { fence: number, reason, droppedFallbackKeys },
          `FENCE RAISED: the database has lost acknowledged writes (${reason}), probably because a backup was restored or a ` +
            `lagging replica promoted. One-time keys${
              droppedFallbackKeys ? ' and fallback keys' : ''
            } uploaded before this point will no longer be issued; clients upload new ones automatically. ` +
            'For details, run "latchkey fence status".',
        )
        return
      }
      case 'raised_elsewhere':
        metrics?.fence({ number: event.number, raisedHere: false })
        log.warn({ fence: event.number }, 'The rollback fence was raised by another process or by command.')
        return
      case 'no_witness':
        log.warn(
          { file: event.file },
          `No witness of this database in ${event.file} yet: an earlier rollback of the database cannot be detected. ` +
            'Keep this directory, and do not restore it together with the database.',
        )
        return
      case 'stands':
        metrics?.fence({ number: event.number, raisedHere: false })
    }
  }
}
