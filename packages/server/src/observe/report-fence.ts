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
        log.error(
          { file: event.file, ...(event.last !== undefined && { last: event.last }) },
          `NO WITNESS: the database has writes, but ${event.file} did not exist, so a rollback before this start cannot be ` +
            `detected. ${event.last === undefined ? '' : `The last witness was ${event.last}. `}If the database was restored, ` +
            'stop, and run "latchkey fence raise". Keep this directory, and do not restore it together with the database.',
        )
        return
      case 'witness_with_data':
        log.warn(
          { file: event.file },
          `The witness of the fence is ${event.file}, in the data directory. A snapshot of that directory that is restored ` +
            'cannot be recognised: name a directory on another durable disk with --fence-dir.',
        )
        return
      case 'stands':
        metrics?.fence({ number: event.number, raisedHere: false })
    }
  }
}
