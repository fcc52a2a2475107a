/**
 * The clients of a soak: devices of a few users that upload, claim, reset, sync, send, query and log out, chosen by one
 * seeded generator. They avoid what the checker does not support: full pools and conflicting key IDs.
 */
import { createHash } from 'node:crypto'
import type { Recorder, Reply } from './recorder.ts'

export type SoakDevice = {
  readonly user: string
  readonly deviceId: string
  token: string
  since: string | undefined
  syncing: boolean
  /** Between logout and the next login. */
  away: boolean
  /** Bodies of earlier uploads, for repetition. */
  readonly uploads: Keys[]
  /** Names of recently uploaded keys. */
  names: string[]
  /** Count in the last answer; keeps the pool below its cap. */
  count: number
}

type Keys = Record<string, object | string>

const PASSWORD = 'correct horse battery'
const CURVE = 'signed_curve25519'
/** Algorithm whose keys are strings instead of objects. */
const PLAIN = 'curve25519'
const LATCHKEY = 'unstable/dev.latchkey'
const USERS = 6
const DEVICES_EACH = 2
const MAX_KEYS = 120

export class SoakLoad {
  readonly #recorder: Recorder
  readonly #random: () => number
  readonly #devices: SoakDevice[] = []
  #made = 0

  constructor(recorder: Recorder, random: () => number) {
    this.#recorder = recorder
    this.#random = random
  }

  /** Creates the accounts and their devices. */
  async begin(): Promise<void> {
    for (let u = 0; u < USERS; u++) {
      for (let d = 0; d < DEVICES_EACH; d++) {
        const user = `@user${u}:soak.example`
        const device: SoakDevice = {
          user,
          deviceId: `DEVICE${u}${d}`,
          token: '',
          since: undefined,
          syncing: false,
          away: true,
          uploads: [],
          names: [],
          count: 0,
        }
        await this.#logIn(device, d === 0)
        this.#devices.push(device)
      }
    }
  }

  /** Performs random operations one after another while `isRunning` is true. */
  async work(isRunning: () => boolean): Promise<void> {
    while (isRunning()) await this.#randomOperation()
  }

  /** After all workers ended: every device reads its inbox and its whole pool. */
  async end(): Promise<void> {
    for (const device of this.#devices) {
      while (((await this.#sync(device, 0)) ?? 1) > 0);
      await this.#readPool(device, true)
      await this.#post(device, 'v3/keys/upload', {})
    }
  }

  async #randomOperation(): Promise<void> {
    const device = this.#pick(this.#devices)
    if (device.away) return this.#pause()
    const actions: readonly (readonly [number, () => Promise<unknown>])[] = [
      [36, () => this.#claim(device, 1)],
      [9, () => this.#claim(device, 2 + this.#below(8))],
      [14, () => this.#upload(device, this.#newKeys(1 + this.#below(20)))],
      [4, () => this.#uploadAgain(device)],
      [2, () => this.#uploadTwice(device)],
      [2, () => this.#uploadFallback(device)],
      [3, () => this.#resetSome(device)],
      [2, () => this.#resetAll(device)],
      [12, () => this.#sync(device, this.#random() < 0.1 ? 500 : 0)],
      [10, () => this.#sendMessages(device)],
      [3, () => this.#query(device)],
      [1, () => this.#readPool(device, false)],
      [0.8, () => this.#logInAgain(device)],
    ]
    let at = this.#random() * actions.reduce((sum, [weight]) => sum + weight, 0)
    for (const [weight, act] of actions) {
      at -= weight
      if (at < 0) {
        await act()
        return
      }
    }
  }

  #post(device: SoakDevice, path: string, body: object): Promise<Reply | undefined> {
    return this.#recorder.send({ method: 'POST', path, token: device.token, body })
  }

  async #claim(claimer: SoakDevice, targets: number): Promise<void> {
    const wanted: Record<string, Record<string, string>> = {}
    for (let i = 0; i < targets; i++) {
      const { user, deviceId } = this.#pick(this.#devices)
      ;(wanted[user] ??= {})[deviceId] = this.#random() < 0.1 ? PLAIN : CURVE
    }
    await this.#post(claimer, 'v3/keys/claim', { one_time_keys: wanted })
  }

  async #upload(device: SoakDevice, keys: Keys): Promise<void> {
    if (device.count > MAX_KEYS) return this.#askCount(device)
    device.uploads.push(keys)
    if (device.uploads.length > 20) device.uploads.shift()
    device.names = [...device.names, ...Object.keys(keys)].slice(-200)
    this.#noteCount(device, await this.#post(device, 'v3/keys/upload', { one_time_keys: keys }))
  }

  async #askCount(device: SoakDevice): Promise<void> {
    this.#noteCount(device, await this.#post(device, 'v3/keys/upload', {}))
  }

  #noteCount(device: SoakDevice, reply: Reply | undefined): void {
    const counts = reply?.body['one_time_key_counts'] as Record<string, number> | undefined
    device.count = Math.max(0, ...Object.values(counts ?? { unknown: device.count + 20 }))
  }

  /** A late duplicate of an earlier upload. */
  async #uploadAgain(device: SoakDevice): Promise<void> {
    const keys = device.uploads[this.#below(device.uploads.length)]
    if (keys === undefined || device.count > MAX_KEYS) return
    this.#noteCount(device, await this.#post(device, 'v3/keys/upload', { one_time_keys: keys }))
  }

  /** The same upload twice at once, and concurrently its keys under other names. */
  async #uploadTwice(device: SoakDevice): Promise<void> {
    const keys = this.#newKeys(1 + this.#below(5))
    const renamed = Object.fromEntries(
      Object.entries(keys).map(([name, key]) => [`${name}r${this.#made++}`, key] as const),
    )
    await Promise.all([
      this.#upload(device, keys),
      this.#upload(device, keys),
      this.#random() < 0.3 ? this.#upload(device, renamed) : undefined,
    ])
  }

  async #uploadFallback(device: SoakDevice): Promise<void> {
    await this.#post(device, 'v3/keys/upload', { fallback_keys: { [this.#name(CURVE)]: this.#key(true) } })
  }

  async #resetSome(device: SoakDevice): Promise<void> {
    const names = device.names.filter(() => this.#random() < 0.05)
    await this.#post(device, `unstable/org.matrix.msc4162/keys/reset`, { key_ids: names })
  }

  /** A reset of all keys with replacements, sometimes repeated at once or later. */
  async #resetAll(device: SoakDevice): Promise<void> {
    const body = {
      all: true,
      one_time_keys: this.#newKeys(this.#below(10)),
      ...(this.#random() < 0.6 && { 'dev.latchkey.request_id': `r${this.#made++}` }),
    }
    const send = (): Promise<unknown> => this.#post(device, 'v3/keys/reset', body)
    const isRepeatable = 'dev.latchkey.request_id' in body
    const again = isRepeatable ? this.#random() : 1
    await Promise.all([send(), again < 0.3 ? send() : undefined])
    if (again > 0.3 && again < 0.6) await send()
  }

  /** Returns the number of messages; undefined without an answer. */
  async #sync(device: SoakDevice, timeoutMs: number): Promise<number | undefined> {
    if (device.syncing) return undefined
    device.syncing = true
    const { token } = device
    try {
      const since = device.since === undefined ? '' : `&since=${encodeURIComponent(device.since)}`
      const path = `v3/sync?timeout=${timeoutMs}${since}`
      const reply = await this.#recorder.send({ method: 'GET', path, token })
      if (reply?.status !== 200 || device.token !== token) return undefined
      device.since = String(reply.body['next_batch'])
      return (reply.body['to_device'] as { events: readonly unknown[] }).events.length
    } finally {
      device.syncing = false
    }
  }

  /** Sends a message to a few devices, sometimes twice with the same transaction ID. */
  async #sendMessages(device: SoakDevice): Promise<void> {
    const id = `m${this.#made++}`
    const messages: Record<string, Record<string, { id: string }>> = {}
    for (let i = 0; i <= this.#below(3); i++) {
      const { user, deviceId } = this.#pick(this.#devices)
      ;(messages[user] ??= {})[deviceId] = { id }
    }
    const { token } = device
    const send = (): Promise<Reply | undefined> =>
      this.#recorder.send({ method: 'PUT', path: `v3/sendToDevice/m.soak/${id}`, token, body: { messages } })
    const first = await send()
    if (first === undefined || this.#random() < 0.1) await send()
  }

  async #query(device: SoakDevice): Promise<void> {
    const users = [this.#pick(this.#devices).user, this.#pick(this.#devices).user]
    await this.#post(device, 'v3/keys/query', {
      device_keys: Object.fromEntries(users.map((user) => [user, []])),
    })
  }

  async #readPool(device: SoakDevice, toTheEnd: boolean): Promise<void> {
    for (let from = ''; ; ) {
      const path = `${LATCHKEY}/keys/pool?limit=1000${from}`
      const reply = await this.#recorder.send({ method: 'GET', path, token: device.token })
      const next = reply?.body['next_batch']
      if (!toTheEnd || typeof next !== 'string') return
      from = `&from=${encodeURIComponent(next)}`
    }
  }

  /** Logs out, possibly during other requests of the device, and logs in again with the same device ID. */
  async #logInAgain(device: SoakDevice): Promise<void> {
    if (device.away) return
    device.away = true
    const late = Array.from({ length: this.#below(4) }, () =>
      this.#random() < 0.7 ? this.#upload(device, this.#newKeys(3)) : this.#readPool(device, false),
    )
    for (;;) {
      const reply = await this.#post(device, 'v3/logout', {})
      if (reply !== undefined && reply.status !== 503) break
    }
    if (this.#random() < 0.5) await this.#claim(this.#pick(this.#devices), 5)
    await this.#logIn(device, false)
    await Promise.all(late)
  }

  async #logIn(device: SoakDevice, isNew: boolean): Promise<void> {
    const { user, deviceId } = device
    const localpart = user.slice(1, user.indexOf(':'))
    const registration = {
      username: localpart,
      password: PASSWORD,
      device_id: deviceId,
      auth: { type: 'm.login.dummy' },
    }
    const login = {
      type: 'm.login.password',
      identifier: { type: 'm.id.user', user: localpart },
      password: PASSWORD,
      device_id: deviceId,
    }
    for (let tries = 0; ; tries++) {
      const reply = await this.#recorder.send({
        method: 'POST',
        path: isNew && tries === 0 ? 'v3/register' : 'v3/login',
        body: isNew && tries === 0 ? registration : login,
      })
      if (reply?.status !== 200) continue
      device.token = String(reply.body['access_token'])
      break
    }
    Object.assign(device, { since: undefined, count: 0, names: [] })
    await this.#publish(device)
    device.away = false
  }

  /** Publishes device keys, new ones for each login. */
  async #publish(device: SoakDevice): Promise<void> {
    const { user, deviceId } = device
    const keys = { [`ed25519:${deviceId}`]: this.#material(), [`curve25519:${deviceId}`]: this.#material() }
    const algorithms = ['m.olm.v1.curve25519-aes-sha2']
    const device_keys = { user_id: user, device_id: deviceId, algorithms, keys, signatures: {} }
    await this.#post(device, 'v3/keys/upload', { device_keys })
  }

  #newKeys(count: number): Keys {
    return Object.fromEntries(
      Array.from({ length: count }, () =>
        this.#random() < 0.1 ? [this.#name(PLAIN), this.#material()] : [this.#name(CURVE), this.#key(false)],
      ),
    )
  }

  #key(fallback: boolean): object {
    return { key: this.#material(), signatures: {}, ...(fallback && { fallback }) }
  }

  /** Random IDs, so that upload order differs from ID order. */
  #name(algorithm: string): string {
    return `${algorithm}:${createHash('sha256')
      .update(`${this.#made++}`)
      .digest('hex')
      .slice(0, 12)}`
  }

  #material(): string {
    const bytes = createHash('sha256')
      .update(`material ${this.#made++} ${this.#random()}`)
      .digest()
    return bytes.toString('base64').slice(0, 43)
  }

  #below(limit: number): number {
    return Math.floor(this.#random() * limit)
  }

  #pick<T>(items: readonly T[]): T {
    const item = items[this.#below(items.length)]
    if (item === undefined) throw new Error('nothing to pick from')
    return item
  }

  async #pause(): Promise<void> {
    await new Promise((resolve) => setImmediate(resolve))
  }
}
