/** What the rollback fence does, in the log and in the metrics. Raising it is the loudest line that Latchkey writes. */
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
          `FENCE RAISED: the database has lost writes that were acknowledged (${reason}). Was a backup restored, or a ` +
            `replica promoted that lagged behind? No one-time key of before is issued any more${
              droppedFallbackKeys ? ', nor any fallback key' : ''
            }; clients upload new ones by themselves. Details: latchkey fence status`,
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
          `There is no witness of this database in ${event.file} yet: whether the database went back before now, this process ` +
            'cannot tell by itself. Keep this directory, and do not restore it together with the database.',
        )
        return
      case 'stands':
        metrics?.fence({ number: event.number, raisedHere: false })
    }
  }
}
