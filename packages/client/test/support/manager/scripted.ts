/** A server with scripted answers, for answers that no real server gives. */
import { KeyManager, type KeyManagerOptions, memoryStore, type OutgoingRequest } from '../../../src/index.ts'
import { libolmAccounts } from '../../../src/libolm.ts'
import type { AnyJson } from '@latchkey/testing/matrix-session.ts'
import { loadOlm } from './olm.ts'

export type Answers = {
  readonly [Type in OutgoingRequest['type']]?: (n: number) => { status: number; body: AnyJson }
}

export const ok = (body: AnyJson): { status: number; body: AnyJson } => ({ status: 200, body })
export const EMPTY_DIGEST = Buffer.alloc(32).toString('base64url')

export function keyPool(epoch: string, version: number, digest = EMPTY_DIGEST): AnyJson {
  return { epoch, version, generation: 1, digest: { signed_curve25519: digest }, fallback: {} }
}

/** A pool with one key that this device never published. */
export function foreignPool(epoch: string, version: number): AnyJson {
  const available = [{ key_id: 'Z', key_hash: 'of a stranger', uploaded_ts: 1 }]
  return {
    epoch,
    version,
    generation: 1,
    algorithms: { signed_curve25519: { count: 1, digest: 'foreign', available, issued: [] } },
  }
}

/** An honest server with our extensions, unless a scripted answer replaces its own. */
const HONEST: Answers = {
  versions: () => ok({ unstable_features: { 'org.matrix.msc4162': true, 'dev.latchkey.key_pool': true } }),
  keys_query: () => ok({ device_keys: {} }),
  keys_upload: () => ok({ one_time_key_counts: { signed_curve25519: 50 } }),
}

export class Scripted {
  readonly manager: KeyManager
  readonly events: string[]
  readonly sent: OutgoingRequest[] = []
  readonly #answers: Answers

  private constructor(manager: KeyManager, events: string[], answers: Answers) {
    this.manager = manager
    this.events = events
    this.#answers = { ...HONEST, ...answers }
  }

  static async open(answers: Answers, more: Partial<KeyManagerOptions> = {}): Promise<Scripted> {
    const events: string[] = []
    const accounts = libolmAccounts(await loadOlm(), 'key')
    const manager = await KeyManager.open({
      store: memoryStore(),
      accounts,
      userId: '@bob:example.org',
      deviceId: 'BOB',
      onEvent: ({ type }) => events.push(type),
      ...more,
    })
    return new Scripted(manager, events, answers)
  }

  /** One sync and the requests that follow, up to a limit. Returns their number. */
  async sync(answer: AnyJson, limit = 200): Promise<number> {
    await this.manager.receiveSync({ next_batch: 'next', ...answer })
    let count = 0
    for (let due; count < limit && (due = await this.manager.outgoingRequests()).length > 0; ) {
      for (const request of due) {
        this.sent.push(request)
        const answered = this.#answers[request.type]?.(++count) ?? ok({})
        await this.manager.markRequestAsSent(request.id, answered)
      }
    }
    return count
  }

  count(type: OutgoingRequest['type']): number {
    return this.sent.filter((request) => request.type === type).length
  }
}
