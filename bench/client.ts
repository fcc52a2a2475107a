/**
 * Cost of the client library: the time that the guard adds to a sync of 50 kB and to an upload of 50 keys, the time of
 * a key manager's sync, and the ledger's bytes per published key. `npm run bench:client`. Answers come from
 * memory, so only the library is measured; every figure is the median of several rounds.
 */
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { guardFetch, KeyManager, memoryStore, type Store } from '@latchkey/client'
import { libolmAccounts } from '@latchkey/client/libolm'
import { fileStore } from '@latchkey/client/node'
import Olm from '@matrix-org/olm'

const ROUNDS = Number(process.env['BENCH_ROUNDS'] ?? 7)
const CALLS = 200
const UPLOADS = 20
const BASE = 'http://127.0.0.1:1'
const USER = '@bench:example.org'
const SYNC_BYTES = 50_000

const workDir = mkdtempSync(join(tmpdir(), 'latchkey-bench-client-'))
let files = 0
const STORES: readonly (readonly [string, () => Store])[] = [
  ['memory', memoryStore],
  ['file', () => fileStore(join(workDir, `${files++}.db`))],
]

/** A homeserver with one device that answers from memory. */
class MemoryHomeserver {
  readonly syncText: string
  count = 0
  version = 1

  constructor(withMessages: boolean) {
    const event = (i: number): object => ({
      type: 'm.room_key_request',
      sender: `@user${i}:example.org`,
      content: { action: 'request', request_id: `${i}`, body: randomBytes(90).toString('base64') },
    })
    const count = withMessages ? Math.ceil(SYNC_BYTES / JSON.stringify(event(100)).length) : 0
    const events = Array.from({ length: count }, (_, i) => event(i))
    this.syncText = JSON.stringify({
      next_batch: 's1',
      to_device: { events },
      device_one_time_keys_count: { signed_curve25519: 50 },
      device_unused_fallback_key_types: ['signed_curve25519'],
    })
  }

  readonly fetch: typeof globalThis.fetch = async (input, init) => {
    const { pathname } = new URL(input instanceof Request ? input.url : input)
    return new Response(this.#answer(pathname, String(init?.body ?? '{}')), {
      headers: { 'content-type': 'application/json' },
    })
  }

  #answer(path: string, body: string): string {
    if (path.endsWith('/sync')) return this.syncText
    if (path.endsWith('/versions')) return '{"versions":["v1.13"]}'
    if (path.endsWith('/whoami')) return JSON.stringify({ user_id: USER, device_id: 'BENCH' })
    if (path.endsWith('/keys/upload')) {
      this.count += Object.keys(JSON.parse(body).one_time_keys ?? {}).length
      // As for a device whose keys are claimed all the time: the pool always has room.
      return JSON.stringify({ one_time_key_counts: { signed_curve25519: 50 } })
    }
    return '{}'
  }
}

function sync(fetch: typeof globalThis.fetch): Promise<unknown> {
  return fetch(`${BASE}/_matrix/client/v3/sync?since=s0`, {
    headers: { authorization: 'Bearer token' },
  }).then((answer) => answer.json())
}

let published = 0

function uploadBody(): string {
  const keys: [string, object][] = []
  for (let i = 0; i < 50; i++) {
    const key = randomBytes(32).toString('base64').slice(0, 43)
    const signature = randomBytes(64).toString('base64').slice(0, 86)
    const id = (published++).toString(36).padStart(11, '0')
    keys.push([`signed_curve25519:${id}`, { key, signatures: { [USER]: { 'ed25519:BENCH': signature } } }])
  }
  return JSON.stringify({ one_time_keys: Object.fromEntries(keys) })
}

function upload(fetch: typeof globalThis.fetch): Promise<unknown> {
  return fetch(`${BASE}/_matrix/client/v3/keys/upload`, {
    method: 'POST',
    headers: { authorization: 'Bearer token', 'content-type': 'application/json' },
    body: uploadBody(),
  }).then((answer) => answer.json())
}

async function timed(calls: number, call: () => Promise<unknown>): Promise<number> {
  const began = performance.now()
  for (let i = 0; i < calls; i++) await call()
  return (performance.now() - began) / calls
}

function median(values: readonly number[]): number {
  return values.toSorted((a, b) => a - b)[Math.floor(values.length / 2)] ?? Number.NaN
}

type Figure = { readonly what: string; readonly store: string; readonly unit: string; readonly value: number }
const figures: Figure[] = []

async function measureGuard(name: string, open: () => Store): Promise<void> {
  const added = { sync: [] as number[], upload: [] as number[] }
  for (let round = 0; round < ROUNDS; round++) {
    const server = new MemoryHomeserver(true)
    const store = open()
    const guard = guardFetch(server.fetch, { store, maxPublished: Number.MAX_SAFE_INTEGER })
    await upload(guard)
    await timed(CALLS, () => sync(guard))
    const plain = await timed(CALLS, () => sync(server.fetch))
    added.sync.push((await timed(CALLS, () => sync(guard))) - plain)
    const plainUpload = await timed(UPLOADS, () => upload(server.fetch))
    added.upload.push((await timed(UPLOADS, () => upload(guard))) - plainUpload)
    await store.close()
  }
  figures.push({
    what: 'guard: added to a sync of 50 kB',
    store: name,
    unit: 'ms',
    value: median(added.sync),
  })
  figures.push({
    what: 'guard: added to an upload of 50 keys',
    store: name,
    unit: 'ms',
    value: median(added.upload),
  })
}

async function measureManager(name: string, open: () => Store): Promise<void> {
  const perSync: number[] = []
  for (let round = 0; round < ROUNDS; round++) {
    const store = open()
    const manager = await KeyManager.open({
      store,
      accounts: libolmAccounts(Olm, 'bench'),
      userId: USER,
      deviceId: 'BENCH',
    })
    const answer: unknown = JSON.parse(new MemoryHomeserver(true).syncText)
    const receive = async (): Promise<unknown> => manager.receiveSync(answer, await manager.syncStarted())
    await timed(CALLS / 4, receive)
    perSync.push(await timed(CALLS / 4, receive))
    manager.close()
    await store.close()
  }
  figures.push({ what: 'key manager: a sync of 50 kB', store: name, unit: 'ms', value: median(perSync) })
}

/** Growth of the file per published key. All keys stay available, which needs the most space. */
async function measureBytes(): Promise<void> {
  const file = join(workDir, 'bytes.db')
  const store = fileStore(file)
  const guard = guardFetch(new MemoryHomeserver(false).fetch, {
    store,
    maxPublished: Number.MAX_SAFE_INTEGER,
  })
  await upload(guard)
  await store.close()
  const before = statSync(file).size
  const more = fileStore(file)
  const second = guardFetch(new MemoryHomeserver(false).fetch, {
    store: more,
    maxPublished: Number.MAX_SAFE_INTEGER,
  })
  for (let i = 0; i < 40; i++) await upload(second)
  await more.close()
  const value = (statSync(file).size - before) / (40 * 50)
  figures.push({ what: 'ledger: per published key', store: 'file', unit: 'bytes', value })
}

try {
  await Olm.init()
  for (const [name, open] of STORES) {
    await measureGuard(name, open)
    await measureManager(name, open)
  }
  await measureBytes()
  const columns = figures.map(({ what, store, value, unit }) => [
    what.padEnd(40),
    store.padEnd(8),
    `${unit === 'bytes' ? value.toFixed(0) : value.toFixed(3)} ${unit}`,
  ])
  for (const row of columns) console.log(row.join(' '))
} finally {
  rmSync(workDir, { recursive: true, force: true })
}
