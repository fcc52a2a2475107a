/**
 * A device in a separate process that kills itself (SIGKILL) before its n-th step. Steps are requests and writes of its
 * state; nothing between two steps has an external effect, so these kills cover every gap. Prints each message that its
 * app read. Exits with 0 when it had fewer than n steps. Reads its plan from standard input, so that it can be started
 * in advance.
 */
import { writeSync } from 'node:fs'
import { text as textOf } from 'node:stream/consumers'
import type { Store } from '@latchkey/client'
import { type Credentials, MatrixSession } from '@latchkey/testing/matrix-session.ts'
import { Clock } from './clock.ts'
import { type Disk, fileDisk } from './disk.ts'
import type { LibolmDevice } from './device.ts'
import { guardedBot, ledgerAt } from './guarded-libolm.ts'
import { loadOlm } from './load-olm.ts'
import { ManagedBot } from './managed-libolm.ts'
import { NaiveBot } from './naive-libolm.ts'
import { FaultyNetwork } from './network.ts'

export type CrashPlan = {
  readonly credentials: Credentials
  readonly path: string
  readonly killBefore: number
  readonly rounds: number
  readonly hasLibrary: boolean
  /** Runs a naive bot behind a guard (without the library: the naive bot alone) instead of a KeyManager. */
  readonly isGuarded?: boolean
}

async function runRounds(plan: CrashPlan): Promise<void> {
  let steps = 0
  const step = (): void => {
    if (++steps === plan.killBefore) process.kill(process.pid, 'SIGKILL')
  }
  const bot = await open(plan, step)
  for (let round = 0; round < plan.rounds; round++) await bot.round()
}

async function open(plan: CrashPlan, step: () => void): Promise<LibolmDevice> {
  const { credentials, path, hasLibrary, isGuarded = false } = plan
  const common = {
    olm,
    session: MatrixSession.resume(credentials),
    network: new FaultyNetwork(step),
    clock: new Clock(),
    onRead: (id: string, text: string) => writeSync(1, `${JSON.stringify({ id, text })}\n`),
  }
  if (isGuarded) {
    const disk = steppingDisk(fileDisk(path), step)
    return guardedBot(common, { disk, ...(hasLibrary && { ledger: stepping(ledgerAt(path), step) }) })
  }
  return hasLibrary
    ? ManagedBot.open({ ...common, path, wrapStore: (store) => stepping(store, step) })
    : new NaiveBot({ ...common, disk: steppingDisk(fileDisk(path), step) })
}

function stepping(store: Store, step: () => void): Store {
  return {
    read: () => store.read(),
    generation: () => store.generation(),
    write(expected, changes) {
      step()
      return store.write(expected, changes)
    },
    exclusively: (work) => store.exclusively(work),
    close: () => store.close(),
  }
}

function steppingDisk(disk: Disk, step: () => void): Disk {
  return {
    read: () => disk.read(),
    write(text) {
      step()
      disk.write(text)
    },
  }
}

const olm = await loadOlm()
const plan = await textOf(process.stdin)
if (plan !== '') await runRounds(JSON.parse(plan))
