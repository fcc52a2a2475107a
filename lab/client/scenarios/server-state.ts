/** The server is restored from a backup. */
import type { LabDevice } from '../device.ts'
import type { Result, Scenario } from '../scenario.ts'
import type { ScenarioContext } from '../scenario-context.ts'

const SENDERS = 6

async function restoredServer(context: ScenarioContext, open: () => Promise<LabDevice>): Promise<Result> {
  const { server } = context
  for (let sender = 0; sender < SENDERS; sender++) await server.senders.get(sender)
  const alice = await open()
  const mail = context.mailbox(alice)
  await server.backUpServer()
  await mail.write(3)
  await mail.round()
  await server.restoreServer()
  await mail.write(1)
  await mail.round()
  mail.requireAllFromNow()
  await mail.write(2)
  await mail.round()
  return mail.tally()
}

const COMMON = {
  story: "A server without a fence is restored from last night's copy; used keys are available again.",
  problem: 'used keys are issued a second time, and counts do not show it',
  shows: ({ undecryptable }: Result) => undecryptable > 0,
  ownsServer: true,
  heals: ['server_rollback'],
} as const

export const serverRestoredLibolm: Scenario = {
  name: 'server-restored-libolm',
  client: 'libolm',
  ...COMMON,
  lostBecause: 'already_used',
  run: (context) => restoredServer(context, () => context.libolm()),
}

export const serverRestored: Scenario = {
  name: 'server-restored',
  client: 'OlmMachine',
  ...COMMON,
  lostBecause: 'seen_twice',
  run: (context) => restoredServer(context, () => context.machine()),
}
