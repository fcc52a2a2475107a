/**
 * Mixed load against one server process: each worker does one thing at a time, again and again, until the server is
 * gone. Answers go into the ledger; a request without one is in doubt and is told to the ledger as such.
 */
import { randomBytes, randomInt } from 'node:crypto'
import type { Ledger } from './ledger.ts'

export type Device = { readonly userId: string; readonly deviceId: string; readonly token: string }

type Answer = { readonly status: number; readonly body: Record<string, unknown> }

/** The server died before it answered. */
export class Unanswered extends Error {
  override readonly name = 'Unanswered'
}

export class Client {
  readonly #url: string
  readonly #onAnswer: () => void

  /** `onAnswer` is called at each answer, before anything is made of it. */
  constructor(url: string, onAnswer: () => void = () => {}) {
    this.#url = url
    this.#onAnswer = onAnswer
  }

  async call(method: string, path: string, token?: string, body?: unknown): Promise<Answer> {
    let answer: Answer
    try {
      const response = await fetch(this.#url + path, {
        method,
        headers: token === undefined ? {} : { authorization: `Bearer ${token}` },
        ...(body !== undefined && { body: JSON.stringify(body) }),
      })
      answer = { status: response.status, body: (await response.json()) as Record<string, unknown> }
    } catch (cause) {
      throw new Unanswered(`${method} ${path}`, { cause })
    }
    this.#onAnswer()
    if (answer.status !== 200)
      throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`)
    return answer
  }
}

/** Runs the workers until the server is killed. Rejects when an answer is wrong. */
export async function runLoad(client: Client, ledger: Ledger, devices: readonly Device[]): Promise<void> {
  const workers = [
    ...devices.map((device) => () => upload(client, ledger, device)),
    ...devices.slice(0, 2).map((device) => () => reset(client, ledger, device)),
    ...Array.from({ length: 6 }, () => () => claim(client, ledger, pick(devices), devices)),
    ...devices.slice(0, 2).map((device) => () => send(client, ledger, device, pick(devices))),
  ]
  await Promise.all(workers.map(untilUnanswered))
}

async function untilUnanswered(work: () => Promise<void>): Promise<void> {
  try {
    for (;;) await work()
  } catch (error) {
    if (!(error instanceof Unanswered)) throw error
  }
}

/** Above this a device only asks for its counts, so that no pool fills up and evicts. */
const ENOUGH_KEYS = 150

async function upload(client: Client, ledger: Ledger, device: Device): Promise<void> {
  const { body: standing } = await client.call('POST', '/_matrix/client/v3/keys/upload', device.token, {})
  const counts = standing['one_time_key_counts'] as Record<string, number>
  if ((counts['signed_curve25519'] ?? 0) > ENOUGH_KEYS) return
  const keys = newKeys(randomInt(1, 12))
  await client.call('POST', '/_matrix/client/v3/keys/upload', device.token, { one_time_keys: byName(keys) })
  ledger.stored(device.deviceId, keys)
}

async function claim(client: Client, ledger: Ledger, who: Device, from: readonly Device[]): Promise<void> {
  const chosen = from.filter(() => randomInt(2) === 0)
  const wanted = chosen.map((device) => [device.userId, { [device.deviceId]: ALGORITHM }])
  const { body } = await client.call('POST', '/_matrix/client/v3/keys/claim', who.token, {
    one_time_keys: Object.fromEntries(wanted),
  })
  const claimed = body['one_time_keys'] as Record<string, Record<string, Record<string, { key: string }>>>
  const keys = Object.values(claimed).flatMap((devices) =>
    Object.values(devices).flatMap(Object.values<{ key: string }>),
  )
  for (const { key } of keys) ledger.issued(key)
}

/** Withdraws everything and brings fresh keys in the same transaction. */
async function reset(client: Client, ledger: Ledger, device: Device): Promise<void> {
  const keys = newKeys(20)
  ledger.resetBegins(device.deviceId)
  const { body } = await client.call('POST', '/_matrix/client/v3/keys/reset', device.token, {
    all: true,
    one_time_keys: byName(keys),
  })
  ledger.resetEnds(device.deviceId)
  ledger.withdrawn(
    (body['dev.latchkey.withdrawn'] as string[]).map((name) => name.slice(ALGORITHM.length + 1)),
  )
  ledger.stored(device.deviceId, keys)
}

async function send(client: Client, ledger: Ledger, from: Device, to: Device): Promise<void> {
  const id = randomBytes(9).toString('base64url')
  await client.call('PUT', `/_matrix/client/v3/sendToDevice/m.test/${id}`, from.token, {
    messages: { [to.userId]: { [to.deviceId]: { id } } },
  })
  ledger.sent(to.deviceId, id)
}

const ALGORITHM = 'signed_curve25519'

/** Keys named after their material, so that a name in an answer tells which key it was. */
function newKeys(count: number): string[] {
  return Array.from({ length: count }, () => randomBytes(32).toString('base64').replace('=', ''))
}

function byName(materials: readonly string[]): Record<string, object> {
  return Object.fromEntries(materials.map((key) => [`${ALGORITHM}:${key}`, { key, signatures: {} }]))
}

function pick<T>(items: readonly T[]): T {
  const item = items[randomInt(items.length)]
  if (item === undefined) throw new Error('nothing to pick from')
  return item
}
