/** The crypto store of an unmodified SDK, or the guard's ledger, is rolled back, lost or damaged. */
import { cpSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import type { Mailbox } from '../mailbox.ts'
import type { PlainLevel } from '../plain-server.ts'
import type { Result, Scenario } from '../scenario.ts'
import type { Place, ScenarioContext } from '../scenario-context.ts'

/** Forty keys are claimed and replaced; then the device is restored from an earlier backup. */
async function restored(
  context: ScenarioContext,
  { cryptoAlone = false, level }: Restoration = {},
): Promise<Result> {
  const alice = await context.machine(level && { level })
  const mail = context.mailbox(alice)
  const backup = await alice.backUp()
  await mail.claim(40)
  await mail.round()
  await alice.restore(backup, { cryptoAlone })
  // The first message uses one of the ten keys that the backup still has.
  await mail.write(1)
  await mail.claim(9)
  await mail.write(1)
  await mail.round()
  mail.requireAllFromNow()
  await mail.write(3)
  await mail.round()
  await mail.round()
  return mail.tally()
}

type Restoration = { readonly cryptoAlone?: boolean; readonly level?: PlainLevel }

const RESTORED = {
  client: 'OlmMachine',
  problem: 'every upload is refused, and senders get keys that the phone does not have',
  shows: ({ undecryptable, refused }: Result) => undecryptable > 0 && refused > 0,
} as const

export const restoredMachine: Scenario = {
  ...RESTORED,
  name: 'old-snapshot',
  heals: ['unknown_keys'],
  story: 'The phone is restored from a backup, crypto store and ledger together.',
  lostBecause: 'lost',
  run: (context) => restored(context),
}

export const restoredMachineAlone: Scenario = {
  ...RESTORED,
  name: 'old-crypto-store',
  heals: ['sdk_rollback'],
  story: 'Only the crypto store is restored from an old copy; the ledger still agrees with the server.',
  lostBecause: 'lost',
  run: (context) => restored(context, { cryptoAlone: true }),
}

const UNLISTED = 'the server lists no keys, so their origin before the backup is unknown'

export const restoredOnPlainServer: Scenario = {
  ...RESTORED,
  name: 'old-snapshot-msc4162',
  heals: ['conflict'],
  story:
    'The phone is restored from a backup; the server has only MSC4162, so the keys that the backup lacks are not listed.',
  inexplicable: UNLISTED,
  run: (context) => restored(context, { level: 'msc4162' }),
}

export const restoredOnBareServer: Scenario = {
  ...RESTORED,
  name: 'old-snapshot-bare',
  heals: ['conflict'],
  story: 'The phone is restored from a backup; the server has only the specification and lists no keys.',
  inexplicable: UNLISTED,
  run: (context) => restored(context, { level: 'bare' }),
}

/** Many uploads of one key each: the first refusal does not show the other conflicts. */
export const restoredOneByOne: Scenario = {
  ...RESTORED,
  name: 'old-snapshot-one-by-one',
  heals: ['conflict'],
  story: 'As on MSC4162, but keys are claimed and replaced one by one, before and after the restore.',
  async run(context) {
    const alice = await context.machine({ level: 'msc4162' })
    const mail = context.mailbox(alice)
    const backup = await alice.backUp()
    for (let i = 0; i < REFILLS; i++) await claimOne(mail)
    await alice.restore(backup)
    await claimOne(mail)
    mail.requireAllFromNow()
    for (let i = 0; i < 2; i++) await claimOne(mail)
    // All keys that the backup has are used.
    await mail.claim(50 - REFILLS)
    await mail.write(3)
    await mail.round()
    return mail.tally()
  },
}

const REFILLS = 12

async function claimOne(mail: Mailbox): Promise<void> {
  await mail.claim(1)
  await mail.round()
}

async function wiped(context: ScenarioContext, level?: PlainLevel): Promise<Result> {
  const alice = await context.machine(level && { level })
  const mail = context.mailbox(alice)
  await mail.write(2)
  await alice.wipe()
  await mail.round()
  mail.requireAllFromNow()
  await mail.write(2)
  await mail.round()
  const events = (await alice.heals())?.events.filter(({ type }) => type === 'identity_changed')
  return {
    ...(await mail.tally()),
    failures: events?.length === 1 ? [] : ['no event reported the new identity'],
  }
}

const WIPED = {
  client: 'OlmMachine',
  problem: 'a new identity under the old device ID, and messages are lost without a cause',
  shows: ({ lost }: Result) => lost.some(({ cause }) => cause === undefined),
  lostBecause: 'lost',
} as const

export const wipedMachine: Scenario = {
  ...WIPED,
  name: 'wiped-crypto-store',
  story: 'The crypto store is lost, but not the access token and the ledger.',
  run: (context) => wiped(context),
}

export const wipedMachinePlain: Scenario = {
  ...WIPED,
  name: 'wiped-crypto-store-msc',
  story: 'The crypto store is lost, but not the ledger; the server has only MSC4162.',
  heals: ['identity_changed'],
  run: (context) => wiped(context, 'msc4162'),
}

/** Suffixes of the bot's own file and of the ledger's. */
const FILES = ['', '.ledger', '.ledger-wal', '.ledger-shm'] as const

export const corruptedLedger: Scenario = {
  name: 'corrupted-ledger',
  client: 'libolm',
  story:
    "The guard's ledger is damaged, and the bot continues unguarded; then its directory is restored from a copy.",
  problem: 'the server issues keys that the copy lacks, and new keys conflict',
  shows: ({ undecryptable, refused }) => undecryptable > 0 && refused > 0,
  heals: ['unknown_keys'],
  async run(context) {
    const place = { session: await context.signIn(), path: context.newFile() }
    const first = context.guardedAt(place)
    const mail = context.mailbox(first)
    await mail.round()
    await first.close()
    const copy = `${place.path}.copy`
    copyFiles(place.path, copy)
    const failures = context.hasLibrary ? await unguarded(context, place, mail) : []
    if (!context.hasLibrary) await runNewProcess(context, place, mail)
    copyFiles(copy, place.path)
    mail.switchTo(context.guardedAt(place))
    await mail.round()
    mail.requireAllFromNow()
    await mail.claim(30)
    await mail.write(2)
    await mail.round()
    await mail.round()
    return { ...(await mail.tally()), failures }
  },
}

/** A new process replaces twenty claimed keys and reads two messages. */
async function runNewProcess(context: ScenarioContext, place: Place, mail: Mailbox): Promise<string[]> {
  const bot = context.guardedAt(place)
  mail.switchTo(bot)
  await mail.claim(20)
  await mail.write(2)
  mail.requirePending()
  await mail.round()
  // The next sync acknowledges the messages.
  await mail.round()
  const events = (await bot.heals())?.events ?? []
  await bot.close()
  return events.map(({ type }) => type)
}

/** The same with a damaged ledger. Returns the failed expectations. */
async function unguarded(context: ScenarioContext, place: Place, mail: Mailbox): Promise<string[]> {
  const ledger = `${place.path}.ledger`
  const bytes = readFileSync(ledger)
  bytes.fill(0x5a, bytes.length / 2, bytes.length / 2 + 512)
  writeFileSync(ledger, bytes)
  const events = await runNewProcess(context, place, mail)
  return [
    ...(events.includes('unguarded') ? [] : ['no event reported the damaged ledger']),
    ...(events.includes('healed') ? ['a heal happened with a damaged ledger'] : []),
    ...(readFileSync(ledger).equals(bytes) ? [] : ['the damaged ledger was overwritten']),
  ]
}

function copyFiles(from: string, to: string): void {
  for (const suffix of FILES) {
    rmSync(to + suffix, { force: true })
    if (existsSync(from + suffix)) cpSync(from + suffix, to + suffix)
  }
}
