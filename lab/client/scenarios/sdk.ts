/** Unmodified SDKs, whose requests pass the guard or do not. */
import { madeUpKey } from '../forge.ts'
import { floodingSdk } from '../js-sdk-device.ts'
import { SYNC } from '../network.ts'
import { showAs } from '../plain-server.ts'
import type { Result, Scenario } from '../scenario.ts'
import type { Stage } from '../stage.ts'

/** Forty keys are claimed and replaced, and then the phone is what it was before. */
async function restored(stage: Stage, { cryptoAlone = false, level }: Restoration = {}): Promise<Result> {
  const alice = await stage.machine(level === undefined ? undefined : (network) => showAs(level, network))
  const mail = stage.mailbox(alice)
  const backup = await alice.backUp()
  await mail.claim(40)
  await mail.round()
  await alice.restore(backup, { cryptoAlone })
  // Of the ten keys that the backup still has, the first message gets one.
  await mail.write(1)
  await mail.claim(9)
  await mail.write(1)
  await mail.round()
  mail.expectAllFromNow()
  await mail.write(3)
  await mail.round()
  await mail.round()
  return mail.tally()
}

type Restoration = { readonly cryptoAlone?: boolean; readonly level?: 'msc4162' | 'bare' }

const RESTORED = {
  client: 'OlmMachine',
  trouble: 'every upload is refused, and whoever writes gets a key that the phone does not have',
  shows: ({ undecryptable, refused }: Result) => undecryptable > 0 && refused > 0,
} as const

export const restoredMachine: Scenario = {
  ...RESTORED,
  name: 'old-snapshot',
  story: 'The phone is restored from a backup, crypto store and ledger together.',
  lostBecause: 'lost',
  run: (stage) => restored(stage),
}

export const restoredMachineAlone: Scenario = {
  ...RESTORED,
  name: 'old-crypto-store',
  story: 'The crypto store alone goes back to an old copy; the ledger does not, and agrees with the server.',
  lostBecause: 'lost',
  run: (stage) => restored(stage, { cryptoAlone: true }),
}

export const restoredOnPlainServer: Scenario = {
  ...RESTORED,
  name: 'old-snapshot-msc4162',
  story: 'The phone is restored from a backup; the server has the reset of MSC4162 and no more.',
  lostBecause: 'never_ours',
  run: (stage) => restored(stage, { level: 'msc4162' }),
}

export const twoTabs: Scenario = {
  name: 'two-tabs',
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
    return mail.tally()
  },
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

export const conflictLoop: Scenario = {
  name: 'conflict-loop',
  client: 'js-sdk 43.0',
  story: 'Somebody published another key under the next ID of the device.',
  trouble: 'the same upload is refused at every sync, and the keys run out',
  shows: ({ refused }) => refused >= 3,
  async run(stage) {
    const alice = await stage.jsSdk()
    const mail = stage.mailbox(alice)
    await alice.session.ok('POST', '/v3/keys/upload', { one_time_keys: { [NEXT_ID]: { key: madeUpKey() } } })
    await mail.claim(10)
    await mail.round()
    await mail.round()
    await mail.write(2)
    await mail.round()
    const [tally, { count }] = [await mail.tally(), await alice.pool()]
    return {
      ...tally,
      notes: [`${count} keys left`],
      failures: tally.refused > 1 ? [`${tally.refused} uploads were refused; expected one`] : [],
    }
  },
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
