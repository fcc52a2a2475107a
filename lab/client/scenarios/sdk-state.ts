/** What an unmodified SDK stores, or the guard's ledger beside it, goes back, is gone, or is damaged. */
import { cpSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import type { Mailbox } from '../mailbox.ts'
import type { PlainLevel } from '../plain-server.ts'
import type { Result, Scenario } from '../scenario.ts'
import type { Place, Stage } from '../stage.ts'

/** Forty keys are claimed and replaced, and then the phone is what it was before. */
async function restored(stage: Stage, { cryptoAlone = false, level }: Restoration = {}): Promise<Result> {
  const alice = await stage.machine(level && { level })
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

type Restoration = { readonly cryptoAlone?: boolean; readonly level?: PlainLevel }

const RESTORED = {
  client: 'OlmMachine',
  trouble: 'every upload is refused, and whoever writes gets a key that the phone does not have',
  shows: ({ undecryptable, refused }: Result) => undecryptable > 0 && refused > 0,
} as const

export const restoredMachine: Scenario = {
  ...RESTORED,
  name: 'old-snapshot',
  heals: ['unknown_keys'],
  story: 'The phone is restored from a backup, crypto store and ledger together.',
  lostBecause: 'lost',
  run: (stage) => restored(stage),
}

export const restoredMachineAlone: Scenario = {
  ...RESTORED,
  name: 'old-crypto-store',
  heals: ['sdk_rollback'],
  story: 'The crypto store alone goes back to an old copy; the ledger does not, and agrees with the server.',
  lostBecause: 'lost',
  run: (stage) => restored(stage, { cryptoAlone: true }),
}

const UNLISTED = 'the server lists no keys, so whose they were before the backup is forgotten'

export const restoredOnPlainServer: Scenario = {
  ...RESTORED,
  name: 'old-snapshot-msc4162',
  heals: ['conflict'],
  story:
    'The phone is restored from a backup; MSC4162 is all the server has, so nothing lists what the backup lacks.',
  inexplicable: UNLISTED,
  run: (stage) => restored(stage, { level: 'msc4162' }),
}

export const restoredOnBareServer: Scenario = {
  ...RESTORED,
  name: 'old-snapshot-bare',
  heals: ['conflict'],
  story:
    'The phone is restored from a backup; the server has the specification alone, and lists no keys either.',
  inexplicable: UNLISTED,
  run: (stage) => restored(stage, { level: 'bare' }),
}

/** Many uploads of one key each: the first of them that is refused says nothing of the others. */
export const restoredOneByOne: Scenario = {
  ...RESTORED,
  name: 'old-snapshot-one-by-one',
  heals: ['conflict'],
  story: 'As on MSC4162, and what the backup lacks was claimed and replaced key by key, and is so again.',
  async run(stage) {
    const alice = await stage.machine({ level: 'msc4162' })
    const mail = stage.mailbox(alice)
    const backup = await alice.backUp()
    for (let i = 0; i < REFILLS; i++) await claimOne(mail)
    await alice.restore(backup)
    await claimOne(mail)
    mail.expectAllFromNow()
    for (let i = 0; i < 2; i++) await claimOne(mail)
    // The keys that the backup has are gone.
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

async function wiped(stage: Stage, level?: PlainLevel): Promise<Result> {
  const alice = await stage.machine(level && { level })
  const mail = stage.mailbox(alice)
  await mail.write(2)
  await alice.wipe()
  await mail.round()
  mail.expectAllFromNow()
  await mail.write(2)
  await mail.round()
  const told = (await alice.heals())?.told.filter(({ type }) => type === 'identity_changed')
  return {
    ...(await mail.tally()),
    failures: told?.length === 1 ? [] : ['nothing told of the new identity'],
  }
}

const WIPED = {
  client: 'OlmMachine',
  trouble: 'a new identity under the old device ID, and nobody knows why messages are lost',
  shows: ({ lost }: Result) => lost.some(({ cause }) => cause === undefined),
  lostBecause: 'lost',
} as const

export const wipedMachine: Scenario = {
  ...WIPED,
  name: 'wiped-crypto-store',
  story: 'The crypto store is gone; the access token and the ledger are not.',
  run: (stage) => wiped(stage),
}

export const wipedMachinePlain: Scenario = {
  ...WIPED,
  name: 'wiped-crypto-store-msc',
  story: 'The crypto store is gone, the ledger is not; the server has the reset of MSC4162 and no more.',
  heals: ['identity_changed'],
  run: (stage) => wiped(stage, 'msc4162'),
}

/** Of the bot's directory: its own file and the ledger's. */
const FILES = ['', '.ledger', '.ledger-wal', '.ledger-shm'] as const

export const corruptedLedger: Scenario = {
  name: 'corrupted-ledger',
  client: 'libolm',
  story:
    "The guard's ledger is damaged, and the bot goes on unguarded; then its directory is put back from a copy.",
  trouble: 'the server issues keys that the copy does not have, and new ones conflict',
  shows: ({ undecryptable, refused }) => undecryptable > 0 && refused > 0,
  heals: ['unknown_keys'],
  async run(stage) {
    const place = { session: await stage.signIn(), path: stage.newFile() }
    const first = stage.guardedAt(place)
    const mail = stage.mailbox(first)
    await mail.round()
    await first.close()
    const copy = `${place.path}.copy`
    copyFiles(place.path, copy)
    const failures = stage.hasLibrary ? await unguarded(stage, place, mail) : []
    if (!stage.hasLibrary) await onward(stage, place, mail)
    copyFiles(copy, place.path)
    mail.moveTo(stage.guardedAt(place))
    await mail.round()
    mail.expectAllFromNow()
    await mail.claim(30)
    await mail.write(2)
    await mail.round()
    await mail.round()
    return { ...(await mail.tally()), failures }
  },
}

/** Twenty keys are claimed and replaced, two messages read, by a new process. */
async function onward(stage: Stage, place: Place, mail: Mailbox): Promise<string[]> {
  const bot = stage.guardedAt(place)
  mail.moveTo(bot)
  await mail.claim(20)
  await mail.write(2)
  mail.mustStayReadable()
  await mail.round()
  // Its next sync tells the server that the messages have arrived.
  await mail.round()
  const told = (await bot.heals())?.told ?? []
  await bot.close()
  return told.map(({ type }) => type)
}

/** The same on a ledger that is damaged: what should have been so, and was not. */
async function unguarded(stage: Stage, place: Place, mail: Mailbox): Promise<string[]> {
  const ledger = `${place.path}.ledger`
  const bytes = readFileSync(ledger)
  bytes.fill(0x5a, bytes.length / 2, bytes.length / 2 + 512)
  writeFileSync(ledger, bytes)
  const told = await onward(stage, place, mail)
  return [
    ...(told.includes('unguarded') ? [] : ['nothing told that the ledger is damaged']),
    ...(told.includes('healed') ? ['something was healed by a damaged ledger'] : []),
    ...(readFileSync(ledger).equals(bytes) ? [] : ['the damaged ledger was overwritten']),
  ]
}

function copyFiles(from: string, to: string): void {
  for (const suffix of FILES) {
    rmSync(to + suffix, { force: true })
    if (existsSync(from + suffix)) cpSync(from + suffix, to + suffix)
  }
}
