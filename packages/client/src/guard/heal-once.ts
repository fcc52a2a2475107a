/**
 * One heal: allowed by mode and budget, noted before it begins (a crash in its middle counts), told of when it ends.
 * Whoever calls holds the store's lock, so there is one at a time whatever the number of tabs.
 */
import type { KeyName } from '@latchkey/protocol'
import { type HealCause, HEALS, noteHeal, waitForHeal } from '../heal/heals.ts'
import type { View } from '../store/stored-state.ts'
import { knownLevel } from './guarded-device.ts'
import { A_MINUTE_MS, type Guarding, tell } from './context.ts'

/** A heal did not work; the message says why, for the app's log. */
export class HealFailed extends Error {
  override readonly name = 'HealFailed'
}

/** Why nothing is done while `/versions` cannot be had. */
export const LEVEL_UNKNOWN = 'what the server offers is not known: /versions has not been answered'

const DAY_MS = 86_400_000
const MAX_NAMES_TOLD = 50

/** Heals of these causes mean that the device's own uploads did not fit what it had published. */
const OF_UPLOADS: readonly HealCause[] = ['sdk_rolled_back', 'conflict']

/**
 * Runs `work` if a heal is allowed now. `work` does it and says in words what it did.
 *
 * @returns whether it healed; failures are told of, not thrown
 */
export async function healOnce(
  guarding: Guarding,
  reason: HealCause,
  keys: readonly KeyName[],
  work: () => Promise<string>,
): Promise<boolean> {
  const { settings, state } = guarding
  const { mode, budget, now } = settings
  const names = keys.slice(0, MAX_NAMES_TOLD)
  if (mode !== 'heal') return refuse(guarding, reason, names, `the mode is "${mode}"`)
  if (knownLevel(guarding) === undefined) return refuse(guarding, reason, names, LEVEL_UNKNOWN)
  const isUpkeep = reason === 'private_keys_evicted'
  const wait = isUpkeep ? 0 : await state.read((view) => waitForHeal(view, budget, now()))
  if (wait > 0) {
    const why =
      wait === Number.POSITIVE_INFINITY
        ? `the budget of ${budget.healsPerDay} heals a day is spent`
        : `the pause after the last heal ends in ${Math.ceil(wait / 1000)} s`
    return refuse(guarding, reason, names, why)
  }
  const at = now()
  const heal = { at, cause: reason, keys: names } as const
  const id = await state.update((transaction) =>
    noteHeal(transaction, { ...heal, did: 'begun, and not finished', ok: false }),
  )
  let outcome: { readonly did: string; readonly ok: boolean }
  try {
    outcome = { did: await work(), ok: true }
  } catch (error) {
    // Timeouts and lost connections of the heal's own requests are failures of the heal, not of the guard.
    outcome = { did: error instanceof Error ? error.message : String(error), ok: false }
  }
  const uploadHeals = await state.update((transaction) => {
    transaction.put(HEALS, id, { ...heal, ...outcome })
    return uploadHealsToday(transaction, now())
  })
  if (outcome.ok) tell(guarding, 'healed', { reason, did: outcome.did, keys: names })
  else tell(guarding, 'not_healed', { reason, why: outcome.did, keys: names })
  if (OF_UPLOADS.includes(reason) && uploadHeals > 1) tell(guarding, 'two_writers', { heals: uploadHeals })
  return outcome.ok
}

function refuse(guarding: Guarding, reason: HealCause, keys: readonly KeyName[], why: string): false {
  const { memory, settings } = guarding
  if (memory.atMostEvery(A_MINUTE_MS, `not_healed ${reason}`, settings.now())) {
    tell(guarding, 'not_healed', { reason, why, keys })
  }
  return false
}

function uploadHealsToday(view: View, now: number): number {
  const heals = [...view.all(HEALS).values()]
  return heals.filter(({ at, cause }) => OF_UPLOADS.includes(cause) && now - at < DAY_MS).length
}
