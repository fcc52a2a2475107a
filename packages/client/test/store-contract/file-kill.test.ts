/** A file store and killed processes: kill -9 between and inside writes, while creating, while holding the lock. */
import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { randomInt } from 'node:crypto'
import { once } from 'node:events'
import { existsSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { createInterface } from 'node:readline'
import { after, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { within } from '@latchkey/testing/within.ts'
import { fileStore } from '../../src/store/sqlite-file.ts'
import { contentAfter } from '../support/store/content-after.ts'

const SCRIPT = fileURLToPath(new URL('../support/store/write-store.ts', import.meta.url))
const ROUNDS = Number(process.env['STORE_KILL_ROUNDS'] ?? 4)
const MAX_STEPS = 120

const root = mkdtempSync(join(tmpdir(), 'latchkey-kill-'))
after(() => rmSync(root, { recursive: true, force: true }))

test(`every acknowledged write exists after each of ${ROUNDS} kills, and none exists in part`, async () => {
  const path = newPath()
  for (let round = 0; round < ROUNDS; round++) {
    const acknowledged = Number(await killAfter(randomInt(1, MAX_STEPS), path, 'write'))
    const store = fileStore(path)
    const { generation, records } = await store.read()
    assert.ok(generation >= acknowledged, `${acknowledged} acknowledged, ${generation} there`)
    assert.deepEqual(new Map(records), contentAfter(generation))
    await store.close()
  }
})

test('a store whose creation was interrupted is complete or absent', async () => {
  const path = newPath()
  const created = Number(await killAfter(randomInt(1, MAX_STEPS), path, 'create'))
  for (let i = 0; i <= created || existsSync(`${path}-${i}`); i++) {
    const store = fileStore(`${path}-${i}`)
    assert.equal(await store.generation(), 0)
    assert.equal(await store.write(0, new Map([['a', '1']])), 1)
    await store.close()
  }
})

test('a killed process releases the lock that it held', async () => {
  const path = newPath()
  const holder = start(path, 'hold')
  await within('the other process to hold the lock', once(createInterface(holder.stdout), 'line'))
  await assert.rejects(
    fileStore(path, { lockTimeoutMs: 20 }).exclusively(() => Promise.resolve()),
    /another process or store object has held it/,
  )
  const waiting = fileStore(path).exclusively(() => Promise.resolve('mine'))
  holder.kill('SIGKILL')
  assert.equal(await within('the lock to be free', waiting), 'mine')
})

test('processes that start on an empty path and count under the lock share one store', async () => {
  const path = newPath()
  const children = Array.from({ length: 3 }, () => start(path, 'count', '20'))
  const codes = await within('all to have counted', Promise.all(children.map((child) => once(child, 'exit'))))
  assert.deepEqual(codes.flat(), [0, null, 0, null, 0, null])
  const store = fileStore(path)
  const snapshot = await store.read()
  assert.equal(snapshot.records.get('count'), '60')
  // Under the lock no writer is ever stale, so there was one write per step.
  assert.equal(snapshot.generation, 60)
  await store.close()
})

type Child = ChildProcess & { readonly stdout: NodeJS.ReadableStream }

function start(path: string, ...task: string[]): Child {
  const child = spawn(process.execPath, [SCRIPT, path, ...task], { stdio: ['ignore', 'pipe', 'inherit'] })
  return child as ChildProcess as Child
}

/** Kills a process when it has printed a number of lines; returns its last line. */
async function killAfter(lines: number, path: string, task: string): Promise<string> {
  const child = start(path, task)
  let last = ''
  for await (const line of createInterface(child.stdout)) {
    last = line
    if (--lines === 0) child.kill('SIGKILL')
  }
  return last
}

function newPath(): string {
  return join(mkdtempSync(join(root, 'place-')), 'store')
}
