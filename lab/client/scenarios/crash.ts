/** kill -9 between every two durable steps, in a process of its own: at the first start, and in a round with messages. */
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import type { MatrixSession } from '@latchkey/testing/matrix-session.ts'
import type { CrashOrder } from '../crash-child.ts'
import type { Tally } from '../mailbox.ts'
import type { Scenario } from '../scenario.ts'
import type { Stage } from '../stage.ts'

const CHILD = fileURLToPath(new URL('../crash-child.ts', import.meta.url))

/** More steps than any of these lives has. */
const MAX_STEPS = 60

type Life = {
  readonly wasKilled: boolean
  /** What its app read: the message, and an ID if the client gives it one. */
  readonly read: readonly { readonly id: string; readonly text: string }[]
}

export const crashFirstStart: Scenario = {
  name: 'crash-first-start',
  client: 'libolm',
  story: 'The process is killed (-9) in each gap between two steps of its first start, and started anew.',
  trouble: 'keys were sent before they were saved: a new account under the old device ID',
  shows: ({ undecryptable, lost }) => undecryptable + lost.length > 0,
  isSlow: true,
  run: (stage) => inEveryGap(stage, firstStart),
}

export const crashRound: Scenario = {
  name: 'crash-round',
  client: 'libolm',
  story: 'The process is killed (-9) in each gap of a round that reads two messages and publishes new keys.',
  trouble: 'in one gap twenty keys are on the server and nowhere else; in others messages are read twice',
  shows: ({ undecryptable }) => undecryptable > 0,
  isSlow: true,
  run: (stage) => inEveryGap(stage, oneRound),
}

export const crashGuarded: Scenario = {
  name: 'crash-round-guard',
  client: 'libolm',
  story: 'The same for a bot that nobody may touch, with a guard in front of it.',
  trouble: 'in one gap twenty keys are on the server and nowhere else, and every later upload is refused',
  shows: ({ undecryptable, refused }) => undecryptable > 0 && refused >= 2,
  heals: ['sdk_rollback'],
  isSlow: true,
  run: (stage) => inEveryGap(stage, oneGuardedRound),
}

/** One life and what follows it; `undefined` when it came to its end without being killed. */
type Trial = (stage: Stage, lives: Lives, killBefore: number) => Promise<Tally | undefined>

async function firstStart(stage: Stage, lives: Lives, killBefore: number): Promise<Tally | undefined> {
  const [session, path] = [await stage.signIn(), stage.newFile()]
  const life = await lives.next({ session, path, killBefore, rounds: 2 })
  if (!life.wasKilled) return undefined
  // Whoever sees the device writes to it at once.
  const device = await stage.libolmAt({ session, path })
  const mail = stage.mailbox(device)
  if ((await device.pool()).count > 0) await mail.write(1)
  mail.mustStayReadable()
  await mail.round()
  mail.expectAllFromNow()
  await mail.claim(30)
  await mail.write(1)
  await mail.round()
  return mail.tally()
}

async function oneRound(stage: Stage, lives: Lives, killBefore: number): Promise<Tally | undefined> {
  const [session, path] = [await stage.signIn(), stage.newFile()]
  const before = await stage.libolmAt({ session, path })
  const mail = stage.mailbox(before)
  await before.round()
  await mail.write(2)
  await mail.claim(20)
  await before.close()
  const life = await lives.next({ session, path, killBefore, rounds: 1 })
  if (!life.wasKilled) return undefined
  const device = await stage.libolmAt({ session, path })
  mail.moveTo(device)
  mail.noteRead(life.read)
  mail.mustStayReadable()
  await mail.round()
  mail.expectAllFromNow()
  await mail.claim(28)
  await mail.write(2)
  await mail.round()
  return mail.tally()
}

async function oneGuardedRound(stage: Stage, lives: Lives, killBefore: number): Promise<Tally | undefined> {
  const [session, path] = [await stage.signIn(), stage.newFile()]
  const before = stage.guardedAt({ session, path })
  const mail = stage.mailbox(before)
  await before.round()
  await mail.write(2)
  await mail.claim(20)
  await before.close()
  const life = await lives.next({ session, path, killBefore, rounds: 1, isGuarded: true })
  if (!life.wasKilled) return undefined
  const device = stage.guardedAt({ session, path })
  mail.moveTo(device)
  mail.noteRead(life.read)
  mail.mustStayReadable()
  // What the crash did to the keys shows at the first upload.
  await mail.claim(5)
  await mail.round()
  mail.expectAllFromNow()
  await mail.claim(25)
  await mail.write(2)
  await mail.round()
  return mail.tally()
}

async function inEveryGap(stage: Stage, trial: Trial) {
  using lives = new Lives(stage.hasLibrary, join(stage.house.directory, 'compiled'))
  const tallies: Tally[] = []
  for (let killBefore = 1; killBefore < MAX_STEPS; killBefore++) {
    const tally = await trial(stage, lives, killBefore)
    if (tally === undefined) return { ...sum(tallies), notes: [`killed ${tallies.length} times`] }
    tallies.push(tally)
  }
  throw new Error(`the life had more than ${MAX_STEPS} steps`)
}

type Conditions = Pick<CrashOrder, 'path' | 'killBefore' | 'rounds' | 'isGuarded'> & {
  readonly session: MatrixSession
}

/** Processes that live once each. One is always started ahead: that takes longer than most lives. */
class Lives {
  readonly #hasLibrary: boolean
  readonly #cache: string
  #child: Child

  /** @param cache a directory for compiled code, which shortens every life but the first */
  constructor(hasLibrary: boolean, cache: string) {
    this.#hasLibrary = hasLibrary
    this.#cache = cache
    this.#child = born(cache)
  }

  async next({ session, ...rest }: Conditions): Promise<Life> {
    const child = this.#child
    const { baseUrl, userId, deviceId, token } = session
    const credentials = { baseUrl, userId, deviceId, token }
    const order: CrashOrder = { ...rest, credentials, hasLibrary: this.#hasLibrary }
    let output = ''
    child.stdout.on('data', (chunk: Buffer) => (output += chunk.toString()))
    child.stdin.end(JSON.stringify(order))
    const closed = once(child, 'close')
    this.#child = born(this.#cache)
    const [code, signal] = await closed
    if (signal !== 'SIGKILL' && code !== 0) throw new Error(`the child ended with ${code ?? signal}`)
    const read = output.split('\n').filter((line) => line !== '')
    return { wasKilled: signal === 'SIGKILL', read: read.map((line) => JSON.parse(line)) }
  }

  /** The one that is left ends without an order. */
  [Symbol.dispose](): void {
    this.#child.stdin.end()
  }
}

type Child = ReturnType<typeof born>

function born(cache: string) {
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
    orphans: total(({ orphans }) => orphans),
  }
}
