/** Where the story plays: a server of its own on a free port, with a temporary directory that goes when it ends. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DEFAULT_CONFIG } from '../packages/server/src/config/config.ts'
import { type Server, startServer } from '../packages/server/src/main.ts'
import { OlmDevice } from '@latchkey/testing/olm-device.ts'

export type Stage = {
  readonly server: Server
  /** Logs a device in and publishes its keys; with `stored` it can be backed up and restored. */
  device(user: string, deviceId: string, options?: { readonly stored: boolean }): Promise<OlmDevice>
  [Symbol.asyncDispose](): Promise<void>
}

export async function openStage(): Promise<Stage> {
  const dataDir = mkdtempSync(join(tmpdir(), 'latchkey-demo-'))
  process.once('exit', () => rmSync(dataDir, { recursive: true, force: true }))
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1))
  const server = await startServer({
    ...DEFAULT_CONFIG,
    port: 0,
    dataDir,
    serverName: 'demo.example',
    registration: 'open',
    logLevel: 'silent',
  })
  const devices: OlmDevice[] = []
  return {
    server,
    async device(user, deviceId, { stored } = { stored: false }) {
      const storeName = stored ? { storeName: user } : {}
      const device = await OlmDevice.ready(server.url, { user, deviceId, ...storeName })
      devices.push(device)
      return device
    },
    async [Symbol.asyncDispose]() {
      for (const device of devices) device.close()
      await server.close()
    },
  }
}

/** The story tells only what happened: where something else did, it ends. */
export function expect(happened: boolean, told: string): asserts happened {
  if (!happened) throw new Error(`expected: ${told}`)
}

/** As `expect`, for something that must be there. */
export function given<T>(value: T | undefined, told: string): T {
  expect(value !== undefined, told)
  return value
}
