/**
 * A victim's claims next to 8 connections of one account that ask for as much as they can, at default limits (issue
 * 11, C1), compared with the victim alone and next to 8 connections with the cheapest request. `npm run bench:abuse`
 * prints a table; the latencies carry the noise of the machine, so compare the columns of one run.
 */
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fill } from './lib/fill.ts'
import { Connection, type LoadResult, type Request, runLoad } from './lib/load.ts'
import { startLatchkey } from './lib/process.ts'
import { claimOf, uploadOf } from './lib/requests.ts'

const DURATION_MS = Number(process.env['BENCH_MS'] ?? 5000)
const CONNECTIONS = 8
const DEVICES = 500
const CLIENT = '/_matrix/client/v3'

const users = (count: number, value: unknown): object =>
  Object.fromEntries(Array.from({ length: count }, (_, n) => [`@unknown${n}:bench.example`, value]))
const body = (value: object): string => JSON.stringify(value)

const directory = mkdtempSync(join(tmpdir(), 'latchkey-abuse-'))
try {
  const devices = await fill({ dataDir: directory, devices: DEVICES, keysEach: 400, fallback: true })
  const server = await startLatchkey(directory, ['--limits', 'on'])
  try {
    const [victim, ...others] = devices
    if (victim === undefined) throw new Error('nothing was filled')
    let n = 0
    const targets = others.slice(0, 300)
    const next = (): Request => claimOf(targets[n++ % targets.length] ?? victim, victim.token)
    const measure = async (attack?: () => Request, connections = CONNECTIONS): Promise<Measured> => {
      const load = { url: server.url, durationMs: DURATION_MS }
      const statuses = new Map<number, number>()
      const end = performance.now() + DURATION_MS
      // The server closes the connection of a request that it refuses before the body has arrived.
      const attackWith = async (request: () => Request): Promise<void> => {
        while (performance.now() < end) {
          const connection = await Connection.to(server.url)
          try {
            while (performance.now() < end) {
              const { status } = await connection.send(request())
              statuses.set(status, (statuses.get(status) ?? 0) + 1)
            }
          } catch {
            // Opened again.
          }
          connection.close()
        }
      }
      const [own] = await Promise.all([
        // Spread over time, so that the victim stays within its own budget.
        runLoad({ ...load, connections: 1, next }),
        ...Array.from({ length: attack ? connections : 0 }, () => attackWith(attack ?? next)),
      ])
      return { own, statuses }
    }
    const attackers = others.slice(300)
    // Each attack has an account of its own, with a full budget.
    const attacks: readonly (readonly [string, (token: string) => Request])[] = [
      ['cheap requests (whoami)', (token) => ({ method: 'GET', path: `${CLIENT}/account/whoami`, token })],
      ['queries of 10 000 users', post('/keys/query', body({ device_keys: users(10_000, []) }))],
      [
        'claims from 10 000 devices',
        post('/keys/claim', body({ one_time_keys: users(10_000, { D: 'signed_curve25519' }) })),
      ],
      ['signatures of 1 000 users', post('/keys/signatures/upload', body(users(1_000, { D: {} })))],
      ['190 000 users without anything', post('/keys/query', body({ device_keys: users(190_000, {}) }))],
      [
        '0.4 MB with one fraction',
        post('/keys/upload', `{"x":[${'1,'.repeat(19_000)}1.5],"y":"${'x'.repeat(360_000)}"}`),
      ],
    ]
    await measure()
    console.log('| next to the victim | p50 | p99 | requests | answers of the attacker |')
    console.log('| --- | --- | --- | --- | --- |')
    print('no one', await measure())
    for (const [i, [name, attack]] of attacks.entries()) {
      const request = attack(attackers[i]?.token ?? '')
      print(name, await measure(() => request))
    }
    const uploader = attackers[attacks.length]
    if (uploader === undefined) throw new Error('too few devices were filled')
    const conflict = uploadOf(uploader, 50, 0)
    print('one client that repeats a refused upload', await measure(() => conflict, 1))
    print('no one', await measure())
  } finally {
    await server.stop()
  }
} finally {
  rmSync(directory, { recursive: true, force: true })
}

type Measured = { readonly own: LoadResult; readonly statuses: ReadonlyMap<number, number> }

function post(path: string, text: string): (token: string) => Request {
  return (token) => ({ method: 'POST', path: CLIENT + path, token, body: text })
}

function print(name: string, { own, statuses }: Measured): void {
  const answers = [...statuses].map(([status, count]) => `${count} x ${status}`).join(', ')
  const failed = own.failures > 0 ? `, ${own.failures} refused` : ''
  console.log(
    `| ${name} | ${own.p50Ms.toFixed(2)} ms | ${own.p99Ms.toFixed(1)} ms | ${own.requests}${failed} | ${answers} |`,
  )
}
