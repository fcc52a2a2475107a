/**
 * Heals an upload that was refused because the server has other keys under its IDs; SDKs retry such an upload
 * endlessly. The SDK's request is replayed inside the same fetch, so the SDK receives a normal answer. By server level:
 *
 *     latchkey   read the pool, withdraw unwanted keys, replay -> reset all, replay -> report
 *     msc4162    reset all, replay -> report
 *     bare       claim the device's own keys until none is left, replay -> omit the refused keys, replay -> report
 *
 * On a bare server the pool is emptied first: keys that are only omitted stay on the server and are issued to others.
 */
import { CONFLICTS, type KeyName } from '@latchkey/protocol'
import { ONE_TIME_KEYS } from '../ledger/key-record.ts'
import { moveTo } from '../ledger/ledger.ts'
import type { WithdrawalTarget } from './abandon-keys.ts'
import { readPool } from './drift.ts'
import { decodeConflict, parseObject } from '../server/answers.ts'
import { guardedDevice, knownLevel, setLevel } from './guarded-device.ts'
import { emitDrift, type GuardContext } from './context.ts'
import { HealFailed, healOnce } from './heal-once.ts'
import { type UploadPayload, withoutKeys } from './upload-payload.ts'
import type { SdkRequest } from './sdk-request.ts'
import { addWithdrawAll } from './pending-withdrawals.ts'
import { withdrawAll, withdrawKeys } from './withdraw.ts'

type Names = readonly KeyName[]
type Step = (names: Names) => Promise<string>

/** Replays that omit refused keys: Synapse names one conflict at a time, and SDKs upload at most 100 keys. */
const MAX_LEFT_OUT = 100

/** The names that an answer refuses; undefined when it is not a conflict. Only Latchkey lists them all. */
export async function conflictOf(context: GuardContext, response: Response): Promise<Names | undefined> {
  if (response.status !== 400) return undefined
  const answer = parseObject(await response.clone().text())
  const names = answer && decodeConflict(response.status, answer)
  if (names !== undefined && answer?.[CONFLICTS] !== undefined) setLevel(context, 'latchkey')
  return names
}

/** Heals, and returns the answer to the accepted replay; undefined when the upload is still refused. */
export async function healConflict(
  context: GuardContext,
  request: SdkRequest,
  payload: UploadPayload,
  conflict: Names,
): Promise<Response | undefined> {
  emitDrift(context, 'conflict', conflict)
  // Without a pool to read, or before the first comparison, unknown keys may lie behind the refused ones.
  const isPoolKnown = await context.state.update((transaction) => {
    const isKnown =
      knownLevel(context) === 'latchkey' && guardedDevice(transaction).reconciledAt !== undefined
    if (!isKnown) addWithdrawAll(transaction, 'conflict')
    return isKnown
  })
  const all: Step = () => withdrawAll(context)
  const byPool: Step = (refused) => withdrawByPool(context, refused)
  let accepted: Response | undefined
  await healOnce(context, 'conflict', conflict, async () => {
    const done: string[] = []
    let names: Names | undefined = conflict
    for (const step of isPoolKnown ? [byPool, all] : [all]) {
      const said = await step(names).catch(failure)
      done.push(typeof said === 'string' ? said : said.message)
      if (typeof said !== 'string') continue
      const response = await request.sendText(JSON.stringify(payload.body))
      names = await conflictOf(context, response)
      if (names === undefined) {
        accepted = requireAccepted(response)
        return done.join('; ')
      }
    }
    if (knownLevel(context) !== 'bare') {
      throw new HealFailed(`${done.join('; ')}; the upload is still refused`)
    }
    const left = await replayWithout(context, request, payload, names)
    accepted = left.response
    return [...done, `omitted ${left.count} refused keys`].join('; ')
  })
  return accepted
}

/** Withdraws the unwanted keys of the pool, and the names that were refused. */
async function withdrawByPool(context: GuardContext, names: Names): Promise<string> {
  const found = await readPool(context)
  if (found === undefined) throw new HealFailed('the pool could not be read')
  const targets = new Map<KeyName, WithdrawalTarget>(names.map((name) => [name, target(name)]))
  for (const unwanted of [...found.unknown, ...found.spent]) targets.set(unwanted.name, unwanted)
  return withdrawKeys(context, [...targets.values()])
}

async function replayWithout(
  context: GuardContext,
  request: SdkRequest,
  payload: UploadPayload,
  conflict: Names,
): Promise<{ response: Response; count: number }> {
  const without = new Set<KeyName>()
  let names: Names | undefined = conflict
  for (let attempt = 0; attempt < MAX_LEFT_OUT && names !== undefined; attempt++) {
    for (const name of names) without.add(name)
    const response = await request.sendText(JSON.stringify(withoutKeys(payload.body, without)))
    names = await conflictOf(context, response)
    if (names !== undefined) continue
    await context.state.update((transaction) => {
      for (const name of without) {
        const detail = 'the server has another key under its ID'
        moveTo(transaction, ONE_TIME_KEYS, name, 'unsent', context.settings.now(), { detail })
      }
    })
    return { response: requireAccepted(response), count: without.size }
  }
  throw new HealFailed(`the upload is refused even without ${without.size} of its keys`)
}

function requireAccepted(response: Response): Response {
  if (response.status !== 200) throw new HealFailed(`the replay was answered with status ${response.status}`)
  return response
}

function target(name: KeyName): WithdrawalTarget {
  return { name, id: undefined }
}

function failure(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error))
}
