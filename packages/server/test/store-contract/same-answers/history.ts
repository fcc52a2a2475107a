/** A history that runs on both servers of a pair, request by request, up to its end or the first difference. */
import assert from 'node:assert/strict'
import {
  EPOCH,
  IF_GENERATION,
  IF_VERSION,
  POOL_PATH,
  REQUEST_ID,
  RESET_UNSTABLE_PATH,
} from '@latchkey/protocol'
import { crossSigningBody } from '@latchkey/testing/signing.ts'
import type { AnyJson } from '@latchkey/testing/test-server.ts'
import { at, crossSigning, deviceKeysOf, keysOf, signedDeviceKeys } from './bodies.ts'
import { Epochs, firstDifference } from './compare.ts'
import { MASKED } from './known-differences.ts'
import { authOf, describe, get, PASSWORD, post, put } from './requests.ts'
import { type Answer, type Both, both, type PairRequest, type ServerPair, STORES } from './server-pair.ts'
import type { Actor, Step } from './steps.ts'

type Of<Name extends Step['do']> = Extract<Step, { do: Name }>

const CLIENT = '/_matrix/client/v3'
const SERVER_NAME = 'test.example'
/** Attempts of a sync while answers differ: acknowledged messages leave the inbox some time after the answer. */
const SYNC_ATTEMPTS = 100
/** Maximum of `keys/pool` pages that are followed. */
const MAX_PAGES = 10

/** State of a client device, per store. Undefined where it has not logged in. */
type Device = {
  readonly userId: string
  readonly deviceId: string
  token: Both<string>
  identity: number | undefined
  /** The tokens of its last syncs, the newest first. */
  syncTokens: Both<string>[]
}

/** Thrown at a masked difference, to end the history. */
class Masked extends Error {}

let histories = 0

/** Runs the steps on both servers. @throws {AssertionError} at the first difference, with the requests up to it. */
export async function runHistory(pair: ServerPair, steps: readonly Step[]): Promise<History> {
  const history = new History(pair)
  try {
    await history.run(steps)
  } catch (error) {
    if (!(error instanceof Masked)) throw error
  }
  return history
}

export class History {
  /** Requests that were compared. */
  requests = 0
  readonly #pair: ServerPair
  readonly #number = ++histories
  readonly #registered = new Set<number>()
  readonly #devices = new Map<string, Device>()
  readonly #epochs = new Epochs()
  readonly #log: string[] = []
  readonly #uploads = new Set<number>()
  #elapsedMs = 0
  #restarted = false
  #lastUpload: Of<'upload'> | undefined

  constructor(pair: ServerPair) {
    this.#pair = pair
  }

  async run(steps: readonly Step[]): Promise<void> {
    this.#pair.resetClock()
    for (const user of [0, 1]) await this.take({ do: 'login', by: { user, device: 'A' } })
    for (const step of steps) await this.take(step)
    for (const device of this.#devices.values()) await this.#readAll(device)
  }

  /** Reads everything that a device can read about itself. */
  async #readAll(device: Device): Promise<void> {
    await this.#readPool(device, 1000)
    await this.#sync(device, undefined)
    await this.#readDevices(device)
  }

  async take(step: Step): Promise<void> {
    if (step.do === 'wait') {
      this.#pair.now += step.ms
      this.#elapsedMs += step.ms
      this.#log.push(`(${step.ms} ms pass)`)
    } else if (step.do === 'restart') {
      await this.#pair.restart()
      this.#restarted = true
      this.#log.push('(both servers are restarted)')
    } else if (step.do === 'upload again') {
      if (this.#lastUpload !== undefined) await this.take(this.#lastUpload)
    } else if (step.do === 'login') await this.#login(step)
    else {
      const device = this.#devices.get(nameOf(step.by))
      if (device !== undefined) await this.#takeAs(device, step)
    }
  }

  // oxlint-disable-next-line complexity -- a line for each kind of step
  async #takeAs(
    device: Device,
    step: Exclude<Step, { do: 'wait' | 'restart' | 'upload again' | 'login' }>,
  ): Promise<void> {
    const { token } = device
    const ask = (request: PairRequest): Promise<Both<Answer>> => this.#ask(step.do, { token, ...request })
    const own = `${CLIENT}/user/${encodeURIComponent(device.userId)}`
    switch (step.do) {
      case 'upload':
        return this.#upload(device, step)
      case 'reset':
        return this.#reset(device, step)
      case 'pool':
        return this.#readPool(device, step.limit)
      case 'sync':
        return this.#sync(device, step.since)
      case 'claim':
        return void (await ask(post(`${CLIENT}/keys/claim`, { one_time_keys: this.#targets(step) })))
      case 'logout':
        return void (await ask(post(`${CLIENT}/logout${step.all === true ? '/all' : ''}`, {})))
      case 'delete devices': {
        const auth = step.password && authOf(device.userId, step.password)
        return void (await ask(post(`${CLIENT}/delete_devices`, { devices: step.devices, auth })))
      }
      case 'set password': {
        const auth = step.password && authOf(device.userId, step.password)
        const body = { new_password: PASSWORD, logout_devices: step.logsOut, auth }
        return void (await ask(post(`${CLIENT}/account/password`, body)))
      }
      case 'rename':
        return void (await ask(put(`${CLIENT}/devices/${step.device}`, { display_name: step.name })))
      case 'devices':
        return this.#readDevices(device)
      case 'send': {
        const path = `${CLIENT}/sendToDevice/m.test${step.type}/${step.transaction}`
        return void (await ask(put(path, { messages: this.#messages(step) })))
      }
      case 'changes': {
        const from = syncToken(device, step.since)
        if (from === undefined) return
        const path = both((store) => `${CLIENT}/keys/changes?from=${from[store]}`)
        return void (await ask({ method: 'GET', path }))
      }
      case 'query': {
        const users = step.users.map((user) => [this.#userId(user), []])
        return void (await ask(post(`${CLIENT}/keys/query`, { device_keys: Object.fromEntries(users) })))
      }
      case 'cross-sign': {
        const auth = step.password && authOf(device.userId, step.password)
        const body = { ...crossSigningBody(device.userId, at(crossSigning, step.pairs)), auth }
        return void (await ask(post(`${CLIENT}/keys/device_signing/upload`, body)))
      }
      case 'sign device': {
        const name = { userId: device.userId, deviceId: step.device }
        const target = this.#devices.get(nameOf({ ...step.by, device: step.device }))
        const body = signedDeviceKeys(name, target?.identity ?? 0, step.pairs)
        const objects = { [device.userId]: { [step.device]: body } }
        return void (await ask(post(`${CLIENT}/keys/signatures/upload`, objects)))
      }
      case 'request': {
        const path = step.path.replace('{user}', encodeURIComponent(device.userId))
        return void (await ask({ ...post(path, step.body), method: step.method }))
      }
      case 'put account data':
        return void (await ask(put(`${own}/account_data/org.test${step.type}`, { content: step.content })))
      case 'get account data':
        return void (await ask(get(`${own}/account_data/org.test${step.type}`)))
      case 'put filter':
        return void (await ask(post(`${own}/filter`, { room: { timeline: { limit: step.limit } } })))
      case 'get filter':
        return void (await ask(get(`${own}/filter/${step.filterId}`)))
    }
  }

  async #login({ by, keepsToken }: Of<'login'>): Promise<void> {
    const localpart = this.#localpart(by.user)
    const isNew = !this.#registered.has(by.user)
    const answers = await this.#ask(
      'login',
      isNew
        ? post(`${CLIENT}/register`, {
            username: localpart,
            password: PASSWORD,
            device_id: by.device,
            auth: { type: 'm.login.dummy' },
          })
        : post(`${CLIENT}/login`, {
            type: 'm.login.password',
            identifier: { type: 'm.id.user', user: localpart },
            password: PASSWORD,
            device_id: by.device,
          }),
    )
    if (answers.sqlite.status !== 200) return
    this.#registered.add(by.user)
    const token = both((store) => String(answers[store].body.access_token))
    const known = this.#devices.get(nameOf(by))
    if (known === undefined) {
      const userId = this.#userId(by.user)
      const device = { userId, deviceId: by.device, token, identity: undefined, syncTokens: [] }
      this.#devices.set(nameOf(by), device)
    } else if (keepsToken !== true) known.token = token
  }

  async #upload(device: Device, step: Of<'upload'>): Promise<void> {
    this.#lastUpload = step
    const identity = step.identity ?? device.identity
    const answers = await this.#ask('upload', {
      ...post(`${CLIENT}/keys/upload`, {
        ...(step.identity !== undefined && { device_keys: deviceKeysOf(device, step.identity) }),
        one_time_keys: keysOf(device, step.keys, identity),
        fallback_keys: keysOf(device, step.fallbacks, identity, { fallback: true }),
      }),
      token: device.token,
    })
    if (answers.sqlite.status === 200) device.identity = identity
  }

  async #reset(device: Device, step: Of<'reset'>): Promise<void> {
    const { ifVersion, ifGeneration, ifEpoch, requestId } = step
    const isConditional = [ifVersion, ifGeneration, ifEpoch].some((given) => given !== undefined)
    const path = `/_matrix/client/${POOL_PATH}`
    const pool = isConditional ? await this.#ask('pool', { ...get(path), token: device.token }) : undefined
    const common = {
      ...(step.all ? { all: true } : { key_ids: step.names }),
      ...(requestId !== undefined && { [REQUEST_ID]: `request ${requestId}` }),
      one_time_keys: keysOf(device, step.keys, device.identity),
      fallback_keys: keysOf(device, step.fallbacks, device.identity, { fallback: true }),
    }
    const body = both((store) => {
      const { version = 0, generation = 0, epoch = '' } = pool?.[store].body ?? {}
      return {
        ...common,
        ...(ifVersion && { [IF_VERSION]: ifVersion === 'right' ? version : version + 1000 }),
        ...(ifGeneration && { [IF_GENERATION]: ifGeneration === 'right' ? generation : generation + 1000 }),
        ...(ifEpoch && { [EPOCH]: ifEpoch === 'right' ? epoch : 'another epoch' }),
      }
    })
    const url = `/_matrix/client/${RESET_UNSTABLE_PATH}`
    await this.#ask('reset', { method: 'POST', path: both(() => url), token: device.token, body })
  }

  /** Follows the pages as a client does. */
  async #readPool(device: Device, limit: number): Promise<void> {
    let cursor: Both<string> | undefined
    for (let page = 1; page <= MAX_PAGES; page++) {
      const from = cursor
      const path = both((store) => {
        const search = new URLSearchParams({ limit: String(limit), ...(from && { from: from[store] }) })
        return `/_matrix/client/${POOL_PATH}?${search}`
      })
      const answers = await this.#ask('pool', { method: 'GET', path, token: device.token })
      if (answers.sqlite.body.next_batch === undefined) return
      cursor = both((store) => String(answers[store].body.next_batch))
    }
  }

  async #sync(device: Device, since: 'last' | 'former' | undefined): Promise<void> {
    const token = since && syncToken(device, since)
    const path = both((store) => `${CLIENT}/sync${token === undefined ? '' : `?since=${token[store]}`}`)
    const answers = await this.#ask('sync', { method: 'GET', path, token: device.token }, SYNC_ATTEMPTS)
    if (answers.sqlite.status !== 200) return
    device.syncTokens = [both((store) => String(answers[store].body.next_batch)), ...device.syncTokens]
  }

  async #readDevices({ token }: Device): Promise<void> {
    await this.#ask('devices', { ...get(`${CLIENT}/devices`), token })
  }

  #targets({ targets }: Of<'claim'>): AnyJson {
    const byUser: Record<string, Record<string, string>> = {}
    for (const { user, device, algorithm } of targets) (byUser[this.#userId(user)] ??= {})[device] = algorithm
    return byUser
  }

  #messages({ to, content }: Of<'send'>): AnyJson {
    const byUser: Record<string, Record<string, object>> = {}
    for (const { user, device } of to) (byUser[this.#userId(user)] ??= {})[device] = { content }
    return byUser
  }

  /**
   * Sends a request to both servers and compares the answers. `attempts` limits how often it is sent while they differ.
   */
  async #ask(step: Step['do'], request: PairRequest, attempts = 1): Promise<Both<Answer>> {
    this.requests++
    for (let attempt = 1; ; attempt++) {
      const answers = await this.#pair.request(request)
      const compared = both((store) => this.#hide(this.#epochs.normalise(store, answers[store])))
      const difference = firstDifference(compared)
      if (difference !== undefined && attempt < attempts) continue
      this.#log.push(`${describe(request)} -> ${compared.sqlite.status}`)
      if (difference !== undefined) this.#report(step, request, difference, compared)
      if (step === 'upload') this.#uploads.add(answers.sqlite.status)
      for (const store of STORES) assert.ok(answers[store].status < 500, this.#transcript(`${store} failed`))
      return answers
    }
  }

  #hide(answer: Answer): Answer {
    return MASKED.reduce((kept, { hide }) => hide?.(kept) ?? kept, answer)
  }

  #report(step: Step['do'], { path }: PairRequest, difference: string, answers: Both<Answer>): never {
    const situation = {
      step,
      path: path.sqlite,
      restarted: this.#restarted,
      elapsedMs: this.#elapsedMs,
      uploads: this.#uploads,
    }
    if (MASKED.some(({ explains }) => explains?.(answers, situation) === true)) throw new Masked()
    const whole = STORES.map((store) => `${store} answered ${JSON.stringify(answers[store])}`)
    assert.fail(this.#transcript([`the answers differ at ${difference}`, ...whole].join('\n')))
  }

  #transcript(what: string): string {
    return `${what}\nafter these requests:\n${this.#log.map((line) => `  ${line}`).join('\n')}\n`
  }

  /** Unique per history, because histories share the servers. */
  #localpart(user: number): string {
    return `h${this.#number}u${user}`
  }

  #userId(user: number): string {
    return `@${this.#localpart(user)}:${SERVER_NAME}`
  }
}

function nameOf({ user, device }: Actor): string {
  return `${user} ${device}`
}

function syncToken({ syncTokens }: Device, since: 'last' | 'former'): Both<string> | undefined {
  return since === 'last' ? syncTokens[0] : (syncTokens[1] ?? syncTokens[0])
}
