/**
 * Keys that are withheld from the server: more than a device can use (matrix-js-sdk 42.3.0 uploads 50 at every sync),
 * or more new keys than the daily budget. An SDK that generates so many also evicts its oldest private halves; before
 * that happens, their published keys are withdrawn and their share of the budget is refunded.
 */
import type { Algorithm, KeyName } from '@latchkey/protocol'
import { ONE_TIME_KEYS } from '../ledger/key-record.ts'
import { generatedSoFar, type HashedKey, publicKeysOf } from '../ledger/ledger.ts'
import { SERVER_VIEW, SERVER_VIEW_ID } from '../server/server-view.ts'
import type { View } from '../store/stored-state.ts'
import type { WithdrawalTarget } from './abandon-keys.ts'
import { emitEvent, type GuardContext, MINUTE_MS, type Settings } from './context.ts'
import { healOnce } from './heal-once.ts'
import { newKeysLeft, refundNewKeys } from './new-key-budget.ts'
import type { UploadPayload } from './upload-payload.ts'
import { withdrawKeys } from './withdraw.ts'

type Names = readonly KeyName[]

/** The names of keys that must not be published now. */
export async function keysOverLimit(
  context: GuardContext,
  { oneTimeKeys }: UploadPayload,
): Promise<ReadonlySet<KeyName>> {
  const { settings, state, memory } = context
  const found = await state.read((view) => checkUploadLimit(view, oneTimeKeys, settings))
  let withheld = found.withheld
  const { published, aboutToExpire } = found
  if (withheld.length > 0 && aboutToExpire.length > 0) {
    const names = aboutToExpire.map(({ name }) => name)
    const made = await healOnce(context, 'private_keys_evicted', names, () =>
      withdrawKeys(context, aboutToExpire),
    )
    if (made) {
      withheld = await state.update((transaction) => {
        refundNewKeys(transaction, aboutToExpire.length)
        return overBudget(transaction, newKeysIn(transaction, oneTimeKeys), settings)
      })
    }
  }
  if (withheld.length > 0 && memory.atMostEvery(MINUTE_MS, 'upload_limited', settings.now())) {
    emitEvent(context, 'upload_limited', { keys: withheld.length, published })
  }
  return new Set(settings.mode === 'heal' ? withheld : [])
}

/** Keys that the ledger does not have as published. */
export function newKeysIn(view: View, keys: readonly HashedKey[]): Names {
  return keys
    .filter(({ name, hash }) => {
      const record = view.get(ONE_TIME_KEYS, name)
      return record?.hash !== hash || record.state === 'unsent' || record.state === 'withdrawn'
    })
    .map(({ name }) => name)
}

type UploadLimitCheck = {
  readonly withheld: Names
  readonly published: number
  /** Keys on the server whose private halves the SDK is about to evict. */
  readonly aboutToExpire: readonly WithdrawalTarget[]
}

function checkUploadLimit(view: View, keys: readonly HashedKey[], settings: Settings): UploadLimitCheck {
  const fresh = newKeysIn(view, keys)
  const algorithms = new Set(fresh.map((name) => name.slice(0, name.indexOf(':')) as Algorithm))
  const tooMany = new Set<KeyName>()
  const aboutToExpire: WithdrawalTarget[] = []
  let published = 0
  for (const algorithm of algorithms) {
    const names = fresh.filter((name) => name.startsWith(`${algorithm}:`))
    const ledger = publicKeysOf(view, algorithm)
    const there = view.get(SERVER_VIEW, SERVER_VIEW_ID)?.counts[algorithm] ?? ledger.length
    published += there
    // A pool that is less than half full accepts an SDK batch of any size.
    if (there >= settings.maxPublished / 2 && there + names.length > settings.maxPublished) {
      for (const name of names) tooMany.add(name)
    }
    // Keys leave from the front, so the last ones of the ledger are those on the server.
    const last = ledger
      .slice(Math.max(0, ledger.length - there))
      .filter(([, { state }]) => state === 'available')
    const oldest = last[0]?.[1].order ?? Number.POSITIVE_INFINITY
    if (generatedSoFar(view) - oldest <= settings.sdkSlots / 2) continue
    aboutToExpire.push(...last.map(([name]) => ({ name, id: name })))
  }
  const rest = fresh.filter((name) => !tooMany.has(name))
  return { withheld: [...tooMany, ...overBudget(view, rest, settings)], published, aboutToExpire }
}

function overBudget(view: View, fresh: Names, settings: Settings): Names {
  return fresh.slice(newKeysLeft(view, settings))
}
