/** One account that fills the inbox of a device, by number and by size (issue 11, B1). */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { temporaryDirectory } from '@latchkey/testing/run-latchkey.ts'
import { ids, ok, send, sync } from '@latchkey/testing/test-client.ts'
import type { AnyJson, TestDevice, TestServer } from '@latchkey/testing/test-server.ts'
import { eventsOf, metric, register, start } from './support.ts'

const MIB = 1024 * 1024
const ROOM_KEYS = 20
/** Lines of one kind of event and one user in the security log (security-log.ts); the rest is counted. */
const LINES = 20

/** All messages that wait for a device, page by page. */
async function receive(server: TestServer, device: TestDevice): Promise<AnyJson[]> {
  const messages: AnyJson[] = []
  for (let since: string | undefined; ; ) {
    const answer = await sync(server, device, since === undefined ? {} : { since, timeout: '0' })
    since = answer.next_batch
    const events: AnyJson[] = answer.to_device?.events ?? []
    if (events.length === 0) return messages
    messages.push(...events)
  }
}

for (const { cause, limits, sent, length } of [
  { cause: 'messages', limits: { inboxMessages: 100 }, sent: 300, length: 100 },
  { cause: 'bytes', limits: { inboxLength: MIB }, sent: 100, length: 60_000 },
]) {
  test(`all room keys of an honest sender arrive although another one exceeds the ${cause} of the inbox`, async () => {
    using directory = temporaryDirectory()
    const securityLog = join(directory.path, 'security.log')
    await using server = await start(limits, { securityLog })
    const victim = await register(server, 'victim', '198.51.100.1')
    const honest = await register(server, 'honest', '198.51.100.2')
    const attacker = await register(server, 'attacker', '203.0.113.1')
    const post = async (from: TestDevice, content: object, transaction: string): Promise<AnyJson> =>
      ok(await send(server, from, { [victim.userId]: { [victim.deviceId]: content } }, transaction))
    for (let n = 0; n < sent; n++) {
      await post(attacker, { text: 'x'.repeat(length) }, `flood${n}`)
      if (n % (sent / ROOM_KEYS) === 0) await post(honest, { key: n / (sent / ROOM_KEYS) }, `key${n}`)
    }

    const [evicted, events] = [
      await metric(server, `evicted_messages_total{cause="${cause}"}`),
      await eventsOf(server, 'messages_evicted'),
    ]
    const messages = await receive(server, victim)
    const honestKeys = messages.filter(({ sender }) => sender === honest.userId)
    assert.deepEqual(
      honestKeys.map(({ content }) => content.key),
      ids(ROOM_KEYS).map((_, n) => n),
    )
    assert.ok(evicted > 0)
    assert.equal(messages.length, sent + ROOM_KEYS - evicted)

    await server.close()
    const lines = readFileSync(securityLog, 'utf8').trimEnd().split('\n')
    const log: AnyJson[] = lines.map((line) => JSON.parse(line))
    const written = log.filter(({ event }) => event === 'messages_evicted')
    assert.ok(events > LINES, `${events} evictions`)
    assert.equal(written.length, LINES)
    for (const line of written) assert.deepEqual([line.evictedUserId, line.cause], [attacker.userId, cause])
    const summaries = log.filter(({ event }) => event === 'events_suppressed')
    assert.deepEqual(
      summaries.map((line) => [line.of, line.subject, line.count]),
      [['messages_evicted', attacker.userId, events - LINES]],
    )
  })
}
