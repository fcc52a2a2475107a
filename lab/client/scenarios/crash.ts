/** kill -9 before every durable step of a separate process: at the first start, and in a round with messages. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { MatrixSession } from '@latchkey/testing/matrix-session.ts'
import type { CrashPlan } from '../crash-child.ts'
import type { Tally } from '../mailbox.ts'
import type { Scenario } from '../scenario.ts'
import type { ScenarioContext } from '../scenario-context.ts'

const CHILD = fileURLToPath(new URL('../crash-child.ts', import.meta.url))

/** More steps than any run has. */
const MAX_STEPS = 60

type CrashRun = {
  readonly wasKilled: boolean
  /** Messages that its app read, with an ID if the client provides one. */
  readonly read: readonly { readonly id: string; readonly text: string }[]
}

export const crashFirstStart: Scenario = {
  name: 'crash-first-start',
  client: 'libolm',
  story: 'The process is killed (-9) before each step of its first start, and restarted.',
  problem: 'keys are sent before they are saved: a new account under the old device ID',
  shows: ({ undecryptable, lost }) => undecryptable + lost.length > 0,
  isSlow: true,
  run: (context) => inEveryGap(context, firstStart),
}

export const crashRound: Scenario = {
  name: 'crash-round',
  client: 'libolm',
  story:
    'The process is killed (-9) before each step of a round that reads two messages and publishes new keys.',
  problem: 'after one kill the server has twenty dead keys; after others messages are read twice',
  shows: ({ undecryptable }) => undecryptable > 0,
  isSlow: true,
  run: (context) => inEveryGap(context, oneRound),
}

export const crashGuarded: Scenario = {
  name: 'crash-round-guard',
  client: 'libolm',
  story: 'The same for an unchanged bot behind a guard.',
  problem: 'after one kill the server has twenty dead keys, and every later upload is refused',
  shows: ({ undecryptable, refused }) => undecryptable > 0 && refused >= 2,
  heals: ['sdk_rollback'],
  isSlow: true,
  run: (context) => inEveryGap(context, oneGuardedRound),
}

/** One killed run and the recovery after it; undefined if the run ended before it was killed. */
type Trial = (context: ScenarioContext, runs: CrashRuns, killBefore: number) => Promise<Tally | undefined>

async function firstStart(
  context: ScenarioContext,
  runs: CrashRuns,
  killBefore: number,
): Promise<Tally | undefined> {
  const [session, path] = [await context.signIn(), context.newFile()]
  const run = await runs.next({ session, path, killBefore, rounds: 2 })
  if (!run.wasKilled) return undefined
  // Senders write as soon as they see the device.
  const device = await context.libolmAt({ session, path })
  const mail = context.mailbox(device)
  if ((await device.pool()).count > 0) await mail.write(1)
  mail.requirePending()
  await mail.round()
  mail.requireAllFromNow()
  await mail.claim(30)
  await mail.write(1)
  await mail.round()
  return mail.tally()
}

async function oneRound(
  context: ScenarioContext,
  runs: CrashRuns,
  killBefore: number,
): Promise<Tally | undefined> {
  const [session, path] = [await context.signIn(), context.newFile()]
  const before = await context.libolmAt({ session, path })
  const mail = context.mailbox(before)
  await before.round()
  await mail.write(2)
  await mail.claim(20)
  await before.close()
  const run = await runs.next({ session, path, killBefore, rounds: 1 })
  if (!run.wasKilled) return undefined
  const device = await context.libolmAt({ session, path })
  mail.switchTo(device)
  mail.noteRead(run.read)
  mail.requirePending()
  await mail.round()
  mail.requireAllFromNow()
  await mail.claim(28)
  await mail.write(2)
  await mail.round()
  return mail.tally()
}

async function oneGuardedRound(
  context: ScenarioContext,
  runs: CrashRuns,
  killBefore: number,
): Promise<Tally | undefined> {
  const [session, path] = [await context.signIn(), context.newFile()]
  const before = context.guardedAt({ session, path })
  const mail = context.mailbox(before)
  await before.round()
  await mail.write(2)
  await mail.claim(20)
  await before.close()
  const run = await runs.next({ session, path, killBefore, rounds: 1, isGuarded: true })
  if (!run.wasKilled) return undefined
  const device = context.guardedAt({ session, path })
  mail.switchTo(device)
  mail.noteRead(run.read)
  mail.requirePending()
  // The effect of the crash on keys shows at the first upload.
  await mail.claim(5)
  await mail.round()
  mail.requireAllFromNow()
  await mail.claim(25)
  await mail.write(2)
  await mail.round()
  return mail.tally()
}

async function inEveryGap(context: ScenarioContext, trial: Trial) {
  using runs = new CrashRuns(context.hasLibrary, join(context.server.directory, 'compiled'))
  const tallies: Tally[] = []
  for (let killBefore = 1; killBefore < MAX_STEPS; killBefore++) {
    const tally = await trial(context, runs, killBefore)
    if (tally === undefined) return { ...sum(tallies), notes: [`killed ${tallies.length} times`] }
    tallies.push(tally)
  }
  throw new Error(`the run had more than ${MAX_STEPS} steps`)
}

type Conditions = Pick<CrashPlan, 'path' | 'killBefore' | 'rounds' | 'isGuarded'> & {
  readonly session: MatrixSession
}

/** Processes for one run each. The next one is started in advance, because a start takes longer than most runs. */
class CrashRuns {
  readonly #hasLibrary: boolean
  readonly #cache: string
  #child: Child

  /** @param cache a directory for compiled code, which speeds up every start but the first */
  constructor(hasLibrary: boolean, cache: string) {
    this.#hasLibrary = hasLibrary
    this.#cache = cache
    this.#child = spawnChild(cache)
  }

  async next({ session, ...rest }: Conditions): Promise<CrashRun> {
    const child = this.#child
    const { baseUrl, userId, deviceId, token } = session
    const credentials = { baseUrl, userId, deviceId, token }
    const plan: CrashPlan = { ...rest, credentials, hasLibrary: this.#hasLibrary }
    let output = ''
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()))
    child.stdin.end(JSON.stringify(plan))
    const closed = once(child, 'close')
    this.#child = spawnChild(this.#cache)
    const [code, signal] = await closed
    if (signal !== 'SIGKILL' && code !== 0) throw new Error(`the child exited with ${code ?? signal}`)
    const read = output.split('\n').filter((line) => line !== '')
    return { wasKilled: signal === 'SIGKILL', read: read.map((line) => JSON.parse(line)) }
  }

  /** The waiting process ends without a plan. */
  [Symbol.dispose](): void {
    this.#child.stdin.end()
  }
}

type Child = ReturnType<typeof spawnChild>

function spawnChild(cache: string) {
  const env = { ...process.env, NODE_COMPILE_CACHE: cache }
  return spawn(process.execPath, [CHILD], { stdio: ['pipe', 'pipe', 'inherit'], env })
}

function sum(tallies: readonly Tally[]): Tally {
  const total = (of: (tally: Tally) => number): number => tallies.reduce((all, tally) => all + of(tally), 0)
  return {
    sent: total(({ sent }) => sent),
    read: total(({ read }) => read),
    undecryptable: total(({ undecryptable }) => undecryptable),
    lost: tallies.flatMap(({ lost }) => lost),
    unexplained: total(({ unexplained }) => unexplained),
    readTwice: total(({ readTwice }) => readTwice),
    uploads: total(({ uploads }) => uploads),
    refused: total(({ refused }) => refused),
    published: total(({ published }) => published),
    deadKeys: total(({ deadKeys }) => deadKeys),
  }
}
