/**
 * A device in a process of its own that kills itself (SIGKILL) before the n-th of its steps: before each request, and
 * before each write of its state. What comes between two steps leaves no trace anywhere, so these are all the gaps.
 * Prints each message that its app has read. Ends with 0 when it had fewer steps than n. Its order comes by standard input,
 * so that it can be started before there is one.
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

export type CrashOrder = {
  readonly credentials: Credentials
  readonly path: string
  readonly killBefore: number
  readonly rounds: number
  readonly hasLibrary: boolean
  /** A naive bot, with the guard or without, instead of a KeyManager or a naive bot. */
  readonly isGuarded?: boolean
}

async function live(order: CrashOrder): Promise<void> {
  let steps = 0
  const step = (): void => {
    if (++steps === order.killBefore) process.kill(process.pid, 'SIGKILL')
  }
  const bot = await open(order, step)
  for (let round = 0; round < order.rounds; round++) await bot.round()
}

async function open(order: CrashOrder, step: () => void): Promise<LibolmDevice> {
  const { credentials, path, hasLibrary, isGuarded = false } = order
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
const order = await textOf(process.stdin)
if (order !== '') await live(JSON.parse(order))
