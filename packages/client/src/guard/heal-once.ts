/**
 * One heal: permitted by mode and budget, recorded before it begins (a crash in the middle counts), reported when it
 * ends. The caller holds the store's lock, so heals run one at a time across all tabs.
 */
import type { KeyName } from '@latchkey/protocol'
import { type HealCause, HEALS, noteHeal, waitForHeal } from '../heal/heals.ts'
import type { View } from '../store/stored-state.ts'
import { knownLevel } from './guarded-device.ts'
import { emitEvent, type GuardContext, MINUTE_MS } from './context.ts'

/** A heal failed; the message says why, for the app's log. */
export class HealFailed extends Error {
  override readonly name = 'HealFailed'
}

/** Why no heal runs before `/versions` was answered. */
export const LEVEL_UNKNOWN = 'the server level is unknown: /versions was not answered'

const DAY_MS = 86_400_000
const MAX_NAMES_IN_EVENT = 50

/** Causes which show that the device's uploads did not match what it had published. */
const UPLOAD_CAUSES: readonly HealCause[] = ['sdk_rollback', 'conflict']

/**
 * Runs `work` if a heal is allowed now. `work` returns a description of what it did.
 *
 * @returns whether the heal succeeded; failures are emitted as events, not thrown
 */
export async function healOnce(
  context: GuardContext,
  cause: HealCause,
  keys: readonly KeyName[],
  work: () => Promise<string>,
): Promise<boolean> {
  const { settings, state } = context
  const { mode, budget, now } = settings
  const names = keys.slice(0, MAX_NAMES_IN_EVENT)
  if (mode !== 'heal') return refuse(context, cause, names, `mode is "${mode}"`)
  if (knownLevel(context) === undefined) return refuse(context, cause, names, LEVEL_UNKNOWN)
  const isUpkeep = cause === 'private_keys_evicted'
  const wait = isUpkeep ? 0 : await state.read((view) => waitForHeal(view, budget, now()))
  if (wait > 0) {
    const detail =
      wait === Number.POSITIVE_INFINITY
        ? `the daily budget of ${budget.healsPerDay} heals is spent`
        : `the pause after the last heal ends in ${Math.ceil(wait / 1000)} s`
    return refuse(context, cause, names, detail)
  }
  const at = now()
  const heal = { at, cause, keys: names } as const
  const id = await state.update((transaction) =>
    noteHeal(transaction, { ...heal, detail: 'started, not finished', ok: false }),
  )
  let outcome: { readonly detail: string; readonly ok: boolean }
  try {
    outcome = { detail: await work(), ok: true }
  } catch (error) {
    // Timeouts and lost connections of the heal's own requests are failures of the heal, not of the guard.
    outcome = { detail: error instanceof Error ? error.message : String(error), ok: false }
  }
  const uploadHeals = await state.update((transaction) => {
    transaction.put(HEALS, id, { ...heal, ...outcome })
    return uploadHealsToday(transaction, now())
  })
  if (outcome.ok) emitEvent(context, 'healed', { cause, detail: outcome.detail, keys: names })
  else emitEvent(context, 'not_healed', { cause, detail: outcome.detail, keys: names })
  if (UPLOAD_CAUSES.includes(cause) && uploadHeals > 1)
    emitEvent(context, 'two_writers', { heals: uploadHeals })
  return outcome.ok
}

function refuse(context: GuardContext, cause: HealCause, keys: readonly KeyName[], detail: string): false {
  const { memory, settings } = context
  if (memory.atMostEvery(MINUTE_MS, `not_healed ${cause}`, settings.now())) {
    emitEvent(context, 'not_healed', { cause, detail, keys })
  }
  return false
}

function uploadHealsToday(view: View, now: number): number {
  const heals = [...view.all(HEALS).values()]
  return heals.filter(({ at, cause }) => UPLOAD_CAUSES.includes(cause) && now - at < DAY_MS).length
}
