/** The demo's own server on a free port, with a temporary data directory that is removed at exit. */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DEFAULT_CONFIG } from '../packages/server/src/config/config.ts'
import { type Server, startServer } from '../packages/server/src/main.ts'
import { OlmDevice } from '@latchkey/testing/olm-device.ts'

export type Demo = {
  readonly server: Server
  /** Logs a device in and publishes its keys. A `stored` device can be backed up and restored. */
  device(user: string, deviceId: string, options?: { readonly stored: boolean }): Promise<OlmDevice>
  [Symbol.asyncDispose](): Promise<void>
}

export async function openDemo(): Promise<Demo> {
  const dataDir = mkdtempSync(join(tmpdir(), 'latchkey-demo-'))
  process.once('exit', () => rmSync(dataDir, { recursive: true, force: true }))
  for (const signal of ['SIGINT', 'SIGTERM'] as const) process.once(signal, () => process.exit(1))
  const server = await startServer({
    ...DEFAULT_CONFIG,
    port: 0,
    dataDir,
    serverName: 'demo.example',
    // By default the second try after 2 s heals; the story shows what happens on servers that always refuse.
    pools: { ...DEFAULT_CONFIG.pools, onConflict: 'reject' },
    registration: 'open',
    logLevel: 'silent',
    securityLog: 'off',
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

/** Ends the demo when a step did not happen as described. @throws {Error} that names the expectation. */
export function expect(happened: boolean, expectation: string): asserts happened {
  if (!happened) throw new Error(`expected: ${expectation}`)
}

/** As `expect`, for a value that must be defined. */
export function required<T>(value: T | undefined, expectation: string): T {
  expect(value !== undefined, expectation)
  return value
}
