/**
 * A server of the accidents program over the embedded store: in this process, where it is stopped, or in a process of
 * its own (server-process.ts), where it is killed.
 */
import { type ChildProcess, fork } from 'node:child_process'
import { once } from 'node:events'
import { join } from 'node:path'
import { DEFAULT_CONFIG, storeOptions } from '../../packages/server/src/config/config.ts'
import { MatrixError } from '../../packages/server/src/matrix-error.ts'
import { openSqliteStore } from '../../packages/server/src/store/sqlite/index.ts'
import { login } from '../../packages/server/test/store-contract/test-device.ts'
import { claim, keys, NOW, upload } from '../../packages/server/test/support/store-calls.ts'

export type ServerOptions = {
  readonly data: string
  readonly fence: string
  readonly clockOffsetMs?: number
  /** Whether a device is logged in and uploads its keys. */
  readonly begins?: boolean
}

export type Claimed = {
  readonly keys: readonly (string | undefined)[]
  readonly refusals: number
  /** How often the fence was raised since the start. */
  readonly raises: number
}

export type Server = {
  claim(count: number): Promise<Claimed>
  end(): Promise<void>
}

/** @throws {StoreError} when the start is refused. */
export async function openServer(options: ServerOptions): Promise<Server> {
  const { data, fence, clockOffsetMs = 0, begins = false } = options
  let raises = 0
  const store = await openSqliteStore({
    ...storeOptions({ ...DEFAULT_CONFIG, dataDir: data }),
    fence: { directory: fence },
    onFence: ({ kind }) => (raises += Number(kind === 'raised')),
    now: () => NOW + clockOffsetMs,
  })
  if (begins) await upload(store, await login(store, NOW), keys(0, 40))
  return {
    async claim(count) {
      const issued: (string | undefined)[] = []
      let refusals = 0
      for (let n = 0; n < count; n++) {
        try {
          issued.push(await claim(store))
        } catch (error) {
          if (!(error instanceof MatrixError && error.status === 503)) throw error
          refusals++
        }
      }
      return { keys: issued, refusals, raises }
    },
    end: () => store.close(),
  }
}

/** A server that ends by `kill -9`. */
export async function forkServer(options: ServerOptions): Promise<Server> {
  const program = join(import.meta.dirname, 'server-process.ts')
  const child = fork(program, [JSON.stringify(options)], { stdio: ['ignore', 'ignore', 'inherit', 'ipc'] })
  await answerOf(child)
  return {
    async claim(count) {
      child.send(count)
      return (await answerOf(child)) as Claimed
    },
    async end() {
      if (child.exitCode !== null || child.signalCode !== null) return
      const exited = once(child, 'exit')
      child.kill('SIGKILL')
      await exited
    },
  }
}

function answerOf(child: ChildProcess): Promise<unknown> {
  return new Promise((resolve, reject) => {
    const fail = (code: number | null): void => reject(new Error(`the server ended with ${code}`))
    child.once('exit', fail)
    child.once('message', (answer) => {
      child.off('exit', fail)
      resolve(answer)
    })
  })
}
