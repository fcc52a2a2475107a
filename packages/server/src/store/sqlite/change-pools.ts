/**
 * A change of one device's pools (pool/port.ts `change`): loads the facts, asks the domain for a decision and saves its
 * changes, in one operation of the commit queue.
 */
import type { Decide, Decision, WantedFacts } from '../../pool/port.ts'
import type { Session } from '../../session.ts'
import type { Core } from './core.ts'
import { loadFacts } from './load-facts.ts'
import { bringUpToDate } from './purge-stale-pools.ts'
import { saveChanges } from './save-changes.ts'
import { proveSession } from './session-device.ts'

export function changePools<Answer>(
  core: Core,
  session: Session,
  wanted: WantedFacts,
  decide: Decide<Answer>,
): Promise<Decision<Answer>> {
  const { deviceRef } = session
  return core.queue.guarded(
    (tx) => {
      const proved = proveSession(tx, session)
      const state = core.keys.existing(deviceRef)
      const decision = decide(loadFacts(core, tx, { ...proved, state }, wanted))
      saveChanges(core, tx, { ...proved, state }, decision.changes)
      return decision
    },
    {
      before: (tx) => bringUpToDate(core, tx, deviceRef),
      undone: () => core.keys.forget(deviceRef),
    },
  )
}
