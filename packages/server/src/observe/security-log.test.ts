import assert from 'node:assert/strict'
import { mkdtempSync, readFileSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { openSecurityLog, SecurityLog } from './security-log.ts'

const START_MS = Date.parse('2026-01-01T00:00:00Z')

function logAt(nowMs: { value: number }): { log: SecurityLog; lines: () => Record<string, unknown>[] } {
  const written: string[] = []
  const log = new SecurityLog({ write: (line) => written.push(line), now: () => nowMs.value })
  return { log, lines: () => written.map((line) => JSON.parse(line) as Record<string, unknown>) }
}

test('a line has the time, the event and its origin, and no absent member', () => {
  const { log, lines } = logAt({ value: START_MS })
  log.note('login_failed', { address: '192.0.2.1', requestId: 'r1' }, {})
  assert.deepEqual(lines(), [
    {
      level: 30,
      time: '2026-01-01T00:00:00.000Z',
      pid: process.pid,
      event: 'login_failed',
      address: '192.0.2.1',
      requestId: 'r1',
    },
  ])
})

test('long strings and lists are cut, and a line break cannot start another line', () => {
  const written: string[] = []
  const log = new SecurityLog({ write: (line) => written.push(line), now: () => START_MS })
  const devices = Array.from({ length: 1000 }, (_, n) => `D${n}`)
  log.note('devices_removed', { userId: '@a:b' }, { devices, count: 1000 })
  log.note(
    'request_limited',
    { userId: '@a:b' },
    { route: '/x', reason: `\n{"event":"login"}${'x'.repeat(10_000)}` },
  )
  for (const line of written) assert.ok(line.length < 600 && line.indexOf('\n') === line.length - 1, line)
  const [removed, limited] = written.map((line) => JSON.parse(line))
  assert.deepEqual(removed.devices, devices.slice(0, 10))
  assert.equal(removed.count, 1000)
  assert.equal(limited.reason.length, 258)
})

test('one network that floods is counted, and its events hide none of another network or kind', () => {
  const now = { value: START_MS }
  const { log, lines } = logAt(now)
  for (let n = 0; n < 1000; n++) log.note('login_failed', { address: `2001:db8::${n.toString(16)}` }, {})
  assert.equal(lines().length, 20)
  log.note('login_failed', { address: '192.0.2.1' }, {})
  log.note('login', { address: '2001:db8::1' }, { userId: '@a:b' })
  assert.equal(lines().length, 22)
  log.summarise()
  log.summarise()
  const [summary, ...more] = lines().slice(22)
  assert.deepEqual(more, [])
  const { event, of, subject, count } = summary ?? {}
  assert.deepEqual(
    { event, of, subject, count },
    {
      event: 'events_suppressed',
      of: 'login_failed',
      subject: '2001:db8:0:0::/64',
      count: 980,
    },
  )
  now.value += 10_000
  log.note('login_failed', { address: '2001:db8::1' }, {})
  assert.equal(lines().length, 24)
})

test('a flood from many networks has a bound, and no event is lost from the counts', () => {
  const { log, lines } = logAt({ value: START_MS })
  for (let n = 0; n < 5000; n++) log.note('login_failed', { address: `10.0.${n >> 8}.${n & 255}` }, {})
  assert.equal(lines().length, 500)
  log.summarise()
  const summaries = lines().slice(500)
  assert.equal(summaries.length, 101)
  assert.equal(summaries.at(-1)?.['subject'], '*')
  assert.equal(
    summaries.reduce((sum, { count }) => sum + Number(count), 0),
    4500,
  )
})

test('no command of the operator is left out', () => {
  const { log, lines } = logAt({ value: START_MS })
  for (let n = 0; n < 1000; n++) log.note('admin_command', {}, { command: 'user lock', target: `@u${n}:b` })
  assert.equal(lines().length, 1000)
})

test('every event is counted, written or not', () => {
  const counted: string[] = []
  const log = new SecurityLog({ now: () => START_MS, count: (event) => counted.push(event) })
  for (let n = 0; n < 30; n++) log.note('login_failed', { address: '192.0.2.1' }, {})
  assert.equal(counted.length, 30)
})

test('a file is appended to, readable by its owner only, and has the counts when it is closed', () => {
  const directory = mkdtempSync(join(tmpdir(), 'latchkey-security-'))
  try {
    const file = join(directory, 'security.log')
    const options = { now: () => START_MS, onFailure: (error: unknown) => assert.fail(String(error)) }
    for (let round = 0; round < 2; round++) {
      const { log, close } = openSecurityLog(file, options)
      for (let n = 0; n < 21; n++) log.note('login_failed', { address: '192.0.2.1' }, {})
      close()
    }
    assert.equal(statSync(file).mode & 0o777, 0o600)
    const events = readFileSync(file, 'utf8').trimEnd().split('\n')
    assert.equal(events.length, 42)
    assert.equal(events.filter((line) => line.includes('events_suppressed')).length, 2)
    assert.throws(() => openSecurityLog(directory, options), /security_log .* cannot be opened: EISDIR/)
  } finally {
    rmSync(directory, { recursive: true })
  }
})
