/**
 * A model of an SDK as the server sees it: key IDs from a counter, a batch that is kept until its upload is
 * acknowledged, refills by the last count, like vodozemac and matrix-sdk-crypto. Its state can be copied and restored.
 */
import { generateKeyPairSync } from 'node:crypto'
import { hashOf } from '../../../src/ledger/ledger.ts'
import { signingKeyPair, type SigningKeyPair } from '@latchkey/testing/signing.ts'
import type { Answer, AnyJson, Fetch, MatrixSession } from '@latchkey/testing/matrix-session.ts'

const TARGET = 50
const ALGORITHM = 'signed_curve25519'

export type ModelState = {
  readonly nextId: number
  readonly unpublished: ReadonlyMap<string, string>
  /** Public keys whose private halves are held. */
  readonly privates: ReadonlySet<string>
  readonly since: string | undefined
  readonly isDevicePublished: boolean
  readonly identity: SigningKeyPair
  readonly curve25519: string
}

export class ModelSdk {
  readonly session: MatrixSession
  readonly uploads: (Answer & { readonly sent: AnyJson })[] = []
  readonly target: number
  #state: ModelState

  constructor(session: MatrixSession, { fetch, target = TARGET }: { fetch?: Fetch; target?: number } = {}) {
    this.session = fetch === undefined ? session : session.through(fetch)
    this.target = target
    this.#state = {
      nextId: 0,
      unpublished: new Map(),
      privates: new Set(),
      since: undefined,
      isDevicePublished: false,
      identity: signingKeyPair(),
      curve25519: publicKey(),
    }
  }

  get state(): ModelState {
    return this.#state
  }

  get curve25519(): string {
    return this.#state.curve25519
  }

  /** The store in an earlier state, as after restoring a backup. */
  restore(state: ModelState): void {
    this.#state = state
  }

  /** The same store in another tab. */
  otherTab(fetch: Fetch): ModelSdk {
    const tab = new ModelSdk(this.session, { fetch, target: this.target })
    tab.restore(this.#state)
    return tab
  }

  /** Syncs, refills by the result, uploads. */
  async round(): Promise<Answer> {
    const answer = await this.sync()
    await this.upload()
    return answer
  }

  /** One immediate sync; a missing count means 0, as in classic syncs of matrix-sdk-crypto. */
  async sync(): Promise<Answer> {
    const { since } = this.#state
    const query = since === undefined ? '' : `&since=${encodeURIComponent(since)}`
    const answer = await this.session.call('GET', `/v3/sync?timeout=0${query}`)
    if (answer.status !== 200) return answer
    this.#state = { ...this.#state, since: answer.body.next_batch }
    this.receiveCount(answer.body.device_one_time_keys_count?.[ALGORITHM] ?? 0)
    return answer
  }

  /** Generates keys for a count, unless a batch is still to be published. */
  receiveCount(count: number): void {
    if (this.#state.unpublished.size > 0 || count >= this.target) return
    this.generate(this.target - count)
  }

  generate(number: number): void {
    const { nextId, unpublished, privates } = this.#state
    const keys = Array.from({ length: number }, (_, i) => [nameOf(nextId + i), publicKey()] as const)
    this.#state = {
      ...this.#state,
      nextId: nextId + number,
      unpublished: new Map([...unpublished, ...keys]),
      privates: new Set([...privates, ...keys.map(([, key]) => key)]),
    }
  }

  /** Uploads the waiting batch, if any; it is acknowledged by a 200. */
  async upload({
    loseAnswer = false,
    more = {},
  }: {
    loseAnswer?: boolean
    more?: AnyJson
  } = {}): Promise<Answer | undefined> {
    const body = { ...this.pendingBody(), ...more }
    if (Object.keys(body).length === 0) return undefined
    const answer = await this.session.call('POST', '/v3/keys/upload', body)
    this.uploads.push({ ...answer, sent: body })
    if (answer.status !== 200 || loseAnswer) return answer
    this.#state = { ...this.#state, unpublished: new Map(), isDevicePublished: true }
    this.receiveCount(answer.body.one_time_key_counts[ALGORITHM] ?? this.target)
    return answer
  }

  /** The body of the next upload. */
  pendingBody(): AnyJson {
    const { unpublished, isDevicePublished } = this.#state
    const keys = Object.fromEntries([...unpublished].map(([name, key]) => [name, this.#signed({ key })]))
    return {
      ...(!isDevicePublished && { device_keys: this.#deviceKeys() }),
      ...(unpublished.size > 0 && { one_time_keys: keys }),
    }
  }

  fallbackKey(id: string): AnyJson {
    return { [`${ALGORITHM}:${id}`]: this.#signed({ key: publicKey(), fallback: true }) }
  }

  /** Keys that the server would issue without a private half here: must be empty. */
  async orphans(): Promise<string[]> {
    const pool = await this.session.ok('GET', '/unstable/dev.latchkey/keys/pool')
    const held = new Set(await Promise.all([...this.#state.privates].map((key) => hashOf(key))))
    const available: AnyJson[] = pool.algorithms[ALGORITHM]?.available ?? []
    return available.filter(({ key_hash: hash }) => !held.has(hash)).map(({ key_id: id }) => id)
  }

  #deviceKeys(): AnyJson {
    const { userId, deviceId } = this.session
    const { identity, curve25519 } = this.#state
    const keys = { [`curve25519:${deviceId}`]: curve25519, [`ed25519:${deviceId}`]: identity.publicKey }
    return this.#signed({ user_id: userId, device_id: deviceId, algorithms: [], keys })
  }

  #signed(object: AnyJson): AnyJson {
    return this.#state.identity.sign(this.session.userId, object, this.session.deviceId)
  }
}

export function nameOf(id: number): string {
  const bytes = Buffer.alloc(8)
  bytes.writeBigUInt64BE(BigInt(id))
  return `${ALGORITHM}:${bytes.toString('base64').replaceAll('=', '')}`
}

/** A random public key without a private half. */
export function publicKey(): string {
  const { x = '' } = generateKeyPairSync('x25519').publicKey.export({ format: 'jwk' })
  return Buffer.from(x, 'base64url').toString('base64').replaceAll('=', '')
}
