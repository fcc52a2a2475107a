/** Unmodified SDKs, whose requests pass the guard or do not. What they store is not touched: see sdk-state.ts. */
import type { LabDevice } from '../device.ts'
import { drain } from '../drain.ts'
import { madeUpKey } from '../forge.ts'
import { floodingSdk } from '../js-sdk-device.ts'
import { SYNC, UPLOAD } from '../network.ts'
import type { PlainLevel } from '../plain-server.ts'
import type { Result, Scenario } from '../scenario.ts'
import type { Stage } from '../stage.ts'

export const twoTabs: Scenario = {
  name: 'two-tabs',
  heals: ['sdk_rollback'],
  client: 'OlmMachine',
  story: 'Two tabs run on one session and one crypto store; then the first is closed.',
  trouble: 'both make the same next IDs with different keys: the second is refused for ever',
  shows: ({ undecryptable, refused }) => undecryptable > 0 && refused > 0,
  async run(stage) {
    const first = await stage.machine()
    const mail = stage.mailbox(first)
    const second = await stage.tabBeside(first)
    await second.round()
    await mail.claim(20)
    await mail.round(first)
    await mail.claim(15)
    await mail.round(second)
    mail.moveTo(second)
    await mail.round(second)
    mail.expectAllFromNow()
    await mail.claim(20)
    await mail.write(3)
    await mail.round(second)
    await mail.round(second)
    const tally = await mail.tally()
    await prove(stage, second, tally.orphans)
    return tally
  },
}

/** That so many of the keys that the server would issue are dead, and no more: somebody writes on each of them. */
async function prove(stage: Stage, device: LabDevice, orphans: number): Promise<void> {
  const { session } = await stage.house.senders.get(0)
  const messages = await drain(stage.house.olm, session, device, (await device.pool()).count)
  await device.round()
  await device.round()
  const unread = messages.filter(({ text }) => !device.read.includes(text))
  if (unread.length !== orphans) throw new Error(`${orphans} keys seemed dead, ${unread.length} are`)
}

export const staleSyncMachine: Scenario = {
  name: 'stale-sync-sdk',
  client: 'OlmMachine',
  story: 'A sync that was answered before an upload arrives after it, with the old count.',
  trouble: 'fifty more keys than a device should have on the server',
  shows: ({ published }) => published >= 150,
  async run(stage) {
    const alice = await stage.machine()
    const mail = stage.mailbox(alice)
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

/** The number 50 as matrix-rust-sdk writes it into an ID: that of the first key after the first fifty. */
const NEXT_ID = 'signed_curve25519:AAAAAAAAADI'

/** Uploads with one-time keys that the server took. */
function uploadsOf({ network }: LabDevice): number {
  const taken = network.to(UPLOAD).filter(({ status }) => status === 200)
  return taken.filter(({ sent }) => Object.keys(sent.one_time_keys ?? {}).length > 0).length
}

async function conflict(stage: Stage, level?: PlainLevel): Promise<Result> {
  const alice = await stage.jsSdk(level && { level })
  const mail = stage.mailbox(alice)
  const other = { one_time_keys: { [NEXT_ID]: { key: madeUpKey() } } }
  await alice.direct.ok('POST', '/v3/keys/upload', other)
  await mail.claim(10)
  await mail.round()
  // The SDK uploads beside its syncs.
  if (stage.hasLibrary) await alice.until('an upload that goes through', () => uploadsOf(alice) === 2)
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
  trouble: 'the same upload is refused at every sync, and the keys run out',
  shows: ({ refused }: Result) => refused >= 3,
} as const

export const conflictLoop: Scenario = {
  ...CONFLICT,
  name: 'conflict-loop',
  story: 'Somebody published another key under the next ID of the device.',
  heals: ['unknown_keys'],
  run: (stage) => conflict(stage),
}

export const conflictLoopBare: Scenario = {
  ...CONFLICT,
  name: 'conflict-loop-bare',
  story: 'The same on a server that has nothing but the specification: the device claims its own keys away.',
  heals: ['conflict'],
  run: (stage) => conflict(stage, 'bare'),
}

export const flood: Scenario = {
  name: 'flood',
  client: 'js-sdk 42.3',
  story: 'An SDK takes "unchanged" for "none" and uploads fifty keys after every sync.',
  trouble: 'the server fills with keys without end',
  shows: ({ published }) => published >= 250,
  async run(stage) {
    const alice = await stage.jsSdk(await floodingSdk())
    const mail = stage.mailbox(alice)
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
