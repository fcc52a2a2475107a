/** A client's key requests over HTTP: generated keys, upload, claim, reset, sync. */
import assert from 'node:assert/strict'
import type { AnyJson, TestClient, TestDevice, TestServer } from './test-server.ts'

export const CLIENT = '/_matrix/client/v3'
export const UPLOAD = `${CLIENT}/keys/upload`
export const CLAIM = `${CLIENT}/keys/claim`
export const RESET = '/_matrix/client/unstable/org.matrix.msc4162/keys/reset'
export const POOL = '/_matrix/client/unstable/dev.latchkey/keys/pool'
export const SYNC = `${CLIENT}/sync`
export const CURVE = 'signed_curve25519'

/** Longer than any test takes: a long-poll that takes this long was not woken. */
const LONG_POLL_MS = 30_000

type Reply = { readonly status: number; readonly body: AnyJson }

/** The full name of a signed one-time key. */
export function named(keyId: string): string {
  return `${CURVE}:${keyId}`
}

/** A key object whose material is 32 bytes derived from `seed`, in unpadded base64. */
export function keyObject(seed: string, extra: Record<string, unknown> = {}): Record<string, unknown> {
  return { key: material(seed), signatures: { '@x:test.example': { 'ed25519:X': 'AAAA' } }, ...extra }
}

export function material(seed: string): string {
  return Buffer.from(seed.padEnd(32, '.').slice(0, 32)).toString('base64').replaceAll('=', '')
}

/** One-time keys with the given IDs; their material is derived from `family` and ID. */
export function keys(keyIds: readonly string[], family = 'k'): Record<string, unknown> {
  return Object.fromEntries(keyIds.map((keyId) => [named(keyId), keyObject(`${family}/${keyId}`)]))
}

/** `count` key IDs in order: `k0000`, `k0001`, ... */
export function ids(count: number, from = 0): string[] {
  return Array.from({ length: count }, (_, i) => `k${String(from + i).padStart(4, '0')}`)
}

export function fallback(keyId: string, seed = `fallback/${keyId}`): Record<string, unknown> {
  return { [named(keyId)]: keyObject(seed, { fallback: true }) }
}

/** Device keys with an identity derived from `family`. */
export function deviceKeys({ userId, deviceId }: TestDevice, family = 'identity'): Record<string, unknown> {
  return {
    user_id: userId,
    device_id: deviceId,
    algorithms: ['m.olm.v1.curve25519-aes-sha2', 'm.megolm.v1.aes-sha2'],
    keys: {
      [`curve25519:${deviceId}`]: material(`${family}/curve`),
      [`ed25519:${deviceId}`]: material(`${family}/ed`),
    },
    signatures: { [userId]: { [`ed25519:${deviceId}`]: 'c2lnbmF0dXJl' } },
  }
}

export function tryUpload(server: TestClient, device: TestDevice, body: unknown): Promise<Reply> {
  return server.call('POST', UPLOAD, { token: device.token, body })
}

export async function upload(server: TestClient, device: TestDevice, body: unknown): Promise<AnyJson> {
  return ok(await tryUpload(server, device, body))
}

/** Claims one key of `target`. Returns its name and object, or undefined if there was none. */
export async function claim(
  server: TestClient,
  claimer: TestDevice,
  target: TestDevice,
  algorithm = CURVE,
): Promise<{ name: string; key: AnyJson } | undefined> {
  const body = { one_time_keys: { [target.userId]: { [target.deviceId]: algorithm } } }
  const answer = ok(await server.call('POST', CLAIM, { token: claimer.token, body }))
  const found = Object.entries(answer.one_time_keys[target.userId]?.[target.deviceId] ?? {})
  assert.ok(found.length <= 1, 'a claim returns at most one key per device')
  const [first] = found
  return first && { name: first[0], key: first[1] }
}

export async function claimNames(
  server: TestClient,
  claimer: TestDevice,
  target: TestDevice,
  count: number,
): Promise<(string | undefined)[]> {
  const names: (string | undefined)[] = []
  for (let i = 0; i < count; i++) names.push((await claim(server, claimer, target))?.name)
  return names
}

export function tryReset(server: TestClient, device: TestDevice, body: unknown): Promise<Reply> {
  return server.call('POST', RESET, { token: device.token, body })
}

export async function reset(server: TestClient, device: TestDevice, body: unknown): Promise<AnyJson> {
  return ok(await tryReset(server, device, body))
}

export async function pool(server: TestClient, device: TestDevice): Promise<AnyJson> {
  return ok(await server.call('GET', POOL, { token: device.token }))
}

export async function sync(
  server: TestClient,
  device: TestDevice,
  query: Record<string, string> = {},
): Promise<AnyJson> {
  return ok(await trySync(server, device, query))
}

export function trySync(
  server: TestClient,
  device: TestDevice,
  query: Record<string, string> = {},
): Promise<Reply> {
  const search = new URLSearchParams(query)
  return server.call('GET', search.size > 0 ? `${SYNC}?${search}` : SYNC, { token: device.token })
}

/**
 * Starts a long-poll and resolves once it waits on the server. The answer is in a member because an async function's
 * own promise would otherwise wait for it.
 */
export async function longPoll(
  server: TestServer,
  device: TestDevice,
  since: string,
): Promise<{ readonly answer: Promise<Reply> }> {
  const before = server.context.waiters.count
  const startedMs = performance.now()
  const answer = trySync(server, device, { since, timeout: String(LONG_POLL_MS) }).then((reply) => {
    assert.ok(performance.now() - startedMs < LONG_POLL_MS, 'nothing woke the long-poll')
    return reply
  })
  await until(() => server.context.waiters.count > before)
  return { answer }
}

/** Yields to the event loop until the condition is true. @throws {Error} after 20 s. */
export async function until(condition: () => boolean): Promise<void> {
  const deadline = Date.now() + 20_000
  while (!condition()) {
    if (Date.now() > deadline) throw new Error('the condition did not become true within 20 s')
    await new Promise((resolve) => setImmediate(resolve))
  }
}

export async function send(
  server: TestClient,
  device: TestDevice,
  messages: unknown,
  transactionId: string,
): Promise<Reply> {
  return server.call('PUT', `${CLIENT}/sendToDevice/m.test/${transactionId}`, {
    token: device.token,
    body: { messages },
  })
}

export function ok(reply: Reply): AnyJson {
  assert.equal(reply.status, 200, JSON.stringify(reply.body))
  return reply.body
}

/** Asserts that a reply is a Matrix error, and returns its text. */
export function refused(reply: Reply, status: number, errcode: string): string {
  assert.equal(reply.status, status, JSON.stringify(reply.body))
  assert.equal(reply.body.errcode, errcode, JSON.stringify(reply.body))
  assert.equal(typeof reply.body.error, 'string')
  return reply.body.error
}
