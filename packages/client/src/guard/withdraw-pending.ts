/** Withdrawing what was noted and not done yet. The caller holds the store's lock. */
import { waitForHeal } from '../heal/heals.ts'
import type { Counts } from '../server/answers.ts'
import { SERVER_VIEW, SERVER_VIEW_ID } from '../server/server-view.ts'
import type { View } from '../store/stored-state.ts'
import { knownLevel } from './guarded-device.ts'
import type { Guarding } from './context.ts'
import { healOnce } from './heal-once.ts'
import { forgetAllToWithdraw, namesOf, outstanding } from './pending-withdrawals.ts'
import { takeBack, takeBackAll } from './withdraw.ts'

/** Whether there is something to withdraw, and it may be done now. */
export function isWithdrawalDue(guarding: Guarding, view: View): boolean {
  const { mode, budget, now } = guarding.settings
  if (mode !== 'heal' || outstanding(view) === undefined || knownLevel(guarding) === undefined) return false
  return waitForHeal(view, budget, now()) === 0
}

/** Returns the counts that hold afterwards; undefined when nothing was withdrawn. */
export async function withdrawOutstanding(guarding: Guarding): Promise<Counts | undefined> {
  const { state } = guarding
  const found = await state.read(outstanding)
  if (found === undefined) return undefined
  const { cause, isAll, targets } = found
  if (cause === 'identity_changed' && knownLevel(guarding) === 'latchkey') {
    // It was noted before the server was known: Latchkey purges the pools of a device that changes its identity.
    await state.update(forgetAllToWithdraw)
    return undefined
  }
  const isDone = await healOnce(guarding, cause, namesOf(targets), () =>
    isAll ? takeBackAll(guarding) : takeBack(guarding, targets),
  )
  return isDone ? state.read((view) => view.get(SERVER_VIEW, SERVER_VIEW_ID)?.counts) : undefined
}
