/** Carries out pending withdrawals. The caller holds the store's lock. */
import { waitForHeal } from '../heal/heals.ts'
import type { Counts } from '../server/answers.ts'
import { SERVER_VIEW, SERVER_VIEW_ID } from '../server/server-view.ts'
import type { View } from '../store/stored-state.ts'
import { knownLevel } from './guarded-device.ts'
import type { GuardContext } from './context.ts'
import { healOnce } from './heal-once.ts'
import { clearPendingWithdrawals, namesOf, pendingWithdrawals } from './pending-withdrawals.ts'
import { withdrawAll, withdrawKeys } from './withdraw.ts'

/** Whether a withdrawal is pending and allowed now. */
export function isWithdrawalDue(context: GuardContext, view: View): boolean {
  const { mode, budget, now } = context.settings
  if (mode !== 'heal' || pendingWithdrawals(view) === undefined || knownLevel(context) === undefined)
    return false
  return waitForHeal(view, budget, now()) === 0
}

/** Returns the counts afterwards; undefined when nothing was withdrawn. */
export async function withdrawPending(context: GuardContext): Promise<Counts | undefined> {
  const { state } = context
  const found = await state.read(pendingWithdrawals)
  if (found === undefined) return undefined
  const { cause, isAll, targets } = found
  if (cause === 'identity_changed' && knownLevel(context) === 'latchkey') {
    // Recorded before the level was known: Latchkey purges the pools of a device that changes its identity.
    await state.update(clearPendingWithdrawals)
    return undefined
  }
  const isDone = await healOnce(context, cause, namesOf(targets), () =>
    isAll ? withdrawAll(context) : withdrawKeys(context, targets),
  )
  return isDone ? state.read((view) => view.get(SERVER_VIEW, SERVER_VIEW_ID)?.counts) : undefined
}
