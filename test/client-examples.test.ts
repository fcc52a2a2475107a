/** The examples of @latchkey/client, run unchanged, each in a separate process. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { startTestServer } from '@latchkey/testing/test-server.ts'
import { MatrixSession, PASSWORD } from '@latchkey/testing/matrix-session.ts'
import { OlmDevice } from '@latchkey/testing/olm-device.ts'
import { within } from '@latchkey/testing/within.ts'

const server = await startTestServer()
const directory = mkdtempSync(join(tmpdir(), 'latchkey-examples-'))
const running = new Set<ChildProcess>()
after(async () => {
  for (const child of running) child.kill('SIGKILL')
  await server[Symbol.asyncDispose]()
  rmSync(directory, { recursive: true, force: true })
})

type Example = {
  /** Resolves with the first line that contains the text. */
  line(text: string): Promise<string>
  end(signal: NodeJS.Signals): Promise<number | null>
  readonly ended: Promise<number | null>
}

function run(name: string, ...args: string[]): Example {
  const file = fileURLToPath(new URL(`../packages/client/examples/${name}`, import.meta.url))
  const child = spawn(process.execPath, [file, ...args], { stdio: ['ignore', 'pipe', 'pipe'] })
  running.add(child)
  let output = ''
  const watchers = new Set<() => void>()
  const read = (chunk: Buffer): void => {
    output += chunk.toString()
    for (const watcher of watchers) watcher()
  }
  child.stdout.on('data', read)
  child.stderr.on('data', read)
  const ended = new Promise<number | null>((resolve) => child.once('exit', (code) => resolve(code)))
  return {
    ended,
    line(text) {
      const found = Promise.withResolvers<string>()
      const look = (): void => {
        const line = output.split('\n').find((candidate) => candidate.includes(text))
        if (line !== undefined) found.resolve(line)
      }
      watchers.add(look)
      look()
      void ended.then((code) =>
        found.reject(new Error(`${name} exited with ${code} before it printed "${text}":\n${output}`)),
      )
      return within(`${name} prints "${text}"`, found.promise)
    },
    async end(signal) {
      child.kill(signal)
      return within(`${name} ends`, ended)
    },
  }
}

test('the guarded matrix-js-sdk client publishes its keys, and the ledger has them', async () => {
  await MatrixSession.signIn(server.url, 'example-alice', 'FIRST')
  const example = run('guard-matrix-js-sdk.ts', server.url, 'example-alice', PASSWORD)
  const line = await example.line('guard: {')
  const status = JSON.parse(line.slice(line.indexOf('{')))
  assert.equal(status.level, 'latchkey')
  assert.deepEqual(status.counts, { signed_curve25519: 50 })
  assert.deepEqual(status.keys, { available: 50 })
  assert.equal(await within('the example ends', example.ended), 0)
})

test('the bot echoes messages, is killed, restarts, and echoes messages sent meanwhile', async () => {
  await MatrixSession.signIn(server.url, 'example-bot', 'FIRST')
  using alice = await OlmDevice.ready(server.url, { user: 'example-carol', deviceId: 'PHONE' })
  const args = [server.url, 'example-bot', PASSWORD, join(directory, 'bot.db')]
  const bot = run('olm-bot.ts', ...args)
  const [, userId = '', deviceId = ''] = /(@\S+) (\S+) is running/.exec(await bot.line('is running')) ?? []
  await bot.line('fallback_rotated')
  await alice.write({ userId, deviceId }, 'one')
  await expectReceived(alice, 'one')

  await bot.end('SIGKILL')
  await alice.send({ userId, deviceId }, 'two')
  const again = run('olm-bot.ts', ...args)
  await expectReceived(alice, 'two')
  assert.deepEqual(
    alice.received.map(({ text }) => text),
    ['one', 'two'],
  )
  assert.deepEqual(alice.undecryptable, [])
  assert.equal(await again.end('SIGTERM'), 0)
})

async function expectReceived(device: OlmDevice, text: string): Promise<void> {
  const received = async (): Promise<void> => {
    while (!device.received.some((message) => message.text === text)) {
      await device.sync({ timeoutMs: 5_000 })
      await device.sendRequests()
    }
  }
  await within(`${device.userId} receives "${text}"`, received())
}
