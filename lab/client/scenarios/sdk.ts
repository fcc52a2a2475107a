/** Unmodified SDKs, with and without the guard, whose stored state stays intact (otherwise: sdk-state.ts). */
import type { LabDevice } from '../device.ts'
import { drain } from '../drain.ts'
import { randomKey } from '../forged-prekey-message.ts'
import { floodingSdk } from '../js-sdk-device.ts'
import { SYNC, UPLOAD } from '../network.ts'
import type { PlainLevel } from '../plain-server.ts'
import type { Result, Scenario } from '../scenario.ts'
import type { ScenarioContext } from '../scenario-context.ts'

export const twoTabs: Scenario = {
  name: 'two-tabs',
  heals: ['sdk_rollback'],
  client: 'OlmMachine',
  story: 'Two tabs share one session and one crypto store; then the first is closed.',
  problem: 'both use the same next IDs for different keys: every upload of the second is refused',
  shows: ({ undecryptable, refused }) => undecryptable > 0 && refused > 0,
  async run(context) {
    const first = await context.machine()
    const mail = context.mailbox(first)
    const second = await context.secondTab(first)
    await second.round()
    await mail.claim(20)
    await mail.round(first)
    await mail.claim(15)
    await mail.round(second)
    mail.switchTo(second)
    await mail.round(second)
    mail.requireAllFromNow()
    await mail.claim(20)
    await mail.write(3)
    await mail.round(second)
    await mail.round(second)
    const tally = await mail.tally()
    await checkDeadKeys(context, second, tally.deadKeys)
    return tally
  },
}

/** Checks the number of dead keys by sending a message on each available key. */
async function checkDeadKeys(context: ScenarioContext, device: LabDevice, deadKeys: number): Promise<void> {
  const { session } = await context.server.senders.get(0)
  const messages = await drain(context.server.olm, session, device, (await device.pool()).count)
  await device.round()
  await device.round()
  const unread = messages.filter(({ text }) => !device.read.includes(text))
  if (unread.length !== deadKeys) throw new Error(`expected ${deadKeys} dead keys, found ${unread.length}`)
}

export const staleSyncMachine: Scenario = {
  name: 'stale-sync-sdk',
  client: 'OlmMachine',
  story: 'The answer to a sync from before an upload arrives after it, with the old count.',
  problem: 'the device publishes fifty keys too many',
  shows: ({ published }) => published >= 150,
  async run(context) {
    const alice = await context.machine()
    const mail = context.mailbox(alice)
    await mail.claim(50)
    const held = alice.network.hold(SYNC)
    const stale = alice.machine.sync()
    await held.answered
    await mail.round()
    held.release()
    await stale
    await alice.machine.sendRequests()
    await mail.write(2)
    await mail.round()
    const tally = await mail.tally()
    return {
      ...tally,
      notes: [`${tally.published} keys published`],
      failures: tally.published > 110 ? [`${tally.published} keys were published; expected 102`] : [],
    }
  },
}

/** The ID that matrix-rust-sdk gives to key number 50, the first one after the initial fifty. */
const NEXT_ID = 'signed_curve25519:AAAAAAAAADI'

/** Number of accepted uploads with one-time keys. */
function uploadsOf({ network }: LabDevice): number {
  const taken = network.to(UPLOAD).filter(({ status }) => status === 200)
  return taken.filter(({ sent }) => Object.keys(sent.one_time_keys ?? {}).length > 0).length
}

async function conflict(context: ScenarioContext, level?: PlainLevel): Promise<Result> {
  const alice = await context.jsSdk(level && { level })
  const mail = context.mailbox(alice)
  const other = { one_time_keys: { [NEXT_ID]: { key: randomKey() } } }
  await alice.direct.ok('POST', '/v3/keys/upload', other)
  await mail.claim(10)
  await mail.round()
  // The SDK uploads independently of its syncs.
  if (context.hasLibrary) await alice.until('an accepted upload', () => uploadsOf(alice) === 2)
  await mail.round()
  await mail.write(2)
  await mail.round()
  const [tally, { count }] = [await mail.tally(), await alice.pool()]
  return {
    ...tally,
    notes: [`${count} keys left`],
    failures: tally.refused > 1 ? [`${tally.refused} uploads were refused; expected one`] : [],
  }
}

const CONFLICT = {
  client: 'js-sdk 43.0',
  problem: 'the same upload is refused at every sync, and the keys run out',
  shows: ({ refused }: Result) => refused >= 3,
} as const

export const conflictLoop: Scenario = {
  ...CONFLICT,
  name: 'conflict-loop',
  story: 'Another key was published under the next ID of the device.',
  heals: ['unknown_keys'],
  run: (context) => conflict(context),
}

export const conflictLoopBare: Scenario = {
  ...CONFLICT,
  name: 'conflict-loop-bare',
  story: 'The same on a server with only the specification: the device claims its own keys.',
  heals: ['conflict'],
  run: (context) => conflict(context, 'bare'),
}

export const flood: Scenario = {
  name: 'flood',
  client: 'js-sdk 42.3',
  story: 'An SDK interprets "unchanged" as "none" and uploads fifty keys after every sync.',
  problem: 'the number of keys on the server grows without limit',
  shows: ({ published }) => published >= 250,
  async run(context) {
    const alice = await context.jsSdk(await floodingSdk())
    const mail = context.mailbox(alice)
    for (let i = 0; i < 3; i++) await mail.round()
    await mail.write(2)
    await mail.round()
    const tally = await mail.tally()
    return {
      ...tally,
      notes: [`${tally.published} keys published`],
      failures: tally.published > 110 ? [`${tally.published} keys were published; expected 102 at most`] : [],
    }
  },
}
