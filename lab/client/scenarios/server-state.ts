/** The server loses its state. */
import type { LabDevice } from '../device.ts'
import type { Result, Scenario } from '../scenario.ts'
import type { Stage } from '../stage.ts'

const SENDERS = 6

async function setBack(stage: Stage, open: () => Promise<LabDevice>): Promise<Result> {
  const { house } = stage
  for (let sender = 0; sender < SENDERS; sender++) await house.senders.get(sender)
  const alice = await open()
  const mail = stage.mailbox(alice)
  await house.backUpServer()
  await mail.write(3)
  await mail.round()
  await house.restoreServer()
  await mail.write(1)
  await mail.round()
  mail.expectAllFromNow()
  await mail.write(2)
  await mail.round()
  return mail.tally()
}

const COMMON = {
  story:
    "A server without a fence is restored from last night's copy; keys that were used are available again.",
  trouble: 'used keys are issued a second time, and no count shows it',
  shows: ({ undecryptable }: Result) => undecryptable > 0,
  ownsServer: true,
  heals: ['server_rollback'],
} as const

export const serverRestoredLibolm: Scenario = {
  name: 'server-restored-libolm',
  client: 'libolm',
  ...COMMON,
  lostBecause: 'already_used',
  run: (stage) => setBack(stage, () => stage.libolm()),
}

export const serverRestored: Scenario = {
  name: 'server-restored',
  client: 'OlmMachine',
  ...COMMON,
  lostBecause: 'seen_twice',
  run: (stage) => setBack(stage, () => stage.machine()),
}
