/**
 * A change of one device's pools (pool/port.ts `change`) in one transaction, which locks the device and its pools,
 * loads the facts, lets the domain decide, and saves its changes. After a deadlock it runs again.
 */
import { type Decide, type Decision, NO_CHANGES, type WantedFacts } from '../../pool/port.ts'
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
  try {
    return await commitChange(core, session, wanted, decide)
  } catch (error) {
    if (error instanceof NothingToCommit) return error.decision as Decision<Answer>
    throw error
  }
}

/** Undoes a transaction that would only make an empty commit durable: refusals come in floods, from stuck clients. */
class NothingToCommit extends Error {
  readonly decision: Decision<unknown>

  constructor(decision: Decision<unknown>) {
    super('the decision changes nothing')
    this.decision = decision
  }
}

async function commitChange<Answer>(
  core: Core,
  session: Session,
  wanted: WantedFacts,
  decide: Decide<Answer>,
): Promise<Decision<Answer>> {
  const { decision, committed } = await write(core, async (tx) => {
    // Device keys change the user's device list, and all that is stored counts towards the user's daily budgets.
    const storesSomething =
      wanted.deviceKeys !== undefined || wanted.oneTimeKeys.length + wanted.fallbackKeys.length > 0
    const owner = storesSomething ? await lockUser(tx, session.userRef) : undefined
    const locked = await lockSessionDevice(tx, session, owner, core.now())
    const decided = decide(await loadFacts(core, tx, locked, wanted))
    if (decided.changes === NO_CHANGES && !locked.isPurged) throw new NothingToCommit(decided)
    return { decision: decided, committed: await saveChanges(core, tx, locked, decided.changes) }
  })
  committed()
  return decision
}
