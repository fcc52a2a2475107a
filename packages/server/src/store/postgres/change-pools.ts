/**
 * A change of one device's pools (pool/port.ts `change`) in one transaction: the device and its pools are locked, the facts
 * are loaded, the domain decides, its changes are saved. A deadlock runs it again.
 */
import type { Decide, Decision, WantedFacts } from '../../pool/port.ts'
import type { Session } from '../../session.ts'
import { type Core, write } from './core.ts'
import { loadFacts } from './load-facts.ts'
import { saveChanges } from './save-changes.ts'
import { lockSessionDevice, lockUser } from './session-device.ts'

export async function changePools<Answer>(
  core: Core,
  session: Session,
  wanted: WantedFacts,
  decide: Decide<Answer>,
): Promise<Decision<Answer>> {
  const { decision, committed } = await write(core, async (tx) => {
    // Device keys change the user's device list, and users are locked before devices (changes.ts).
    if (wanted.deviceKeys !== undefined) await lockUser(tx, session.userRef)
    const locked = await lockSessionDevice(tx, session, core.now())
    const decision = decide(await loadFacts(core, tx, locked, wanted))
    return { decision, committed: await saveChanges(core, tx, locked, decision.changes) }
  })
  committed()
  return decision
}
