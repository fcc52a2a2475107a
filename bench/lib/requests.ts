/** The requests that the benchmarks send, and the check of claimed keys. */
import { type FilledDevice, makeKey } from './fill.ts'
import { Connection, type Request } from './load.ts'

const CLAIM = '/_matrix/client/v3/keys/claim'
const ALGORITHM = 'signed_curve25519'

/** Claims one key of `target`. */
export function claimOf(target: FilledDevice, token = target.token): Request {
  const body = JSON.stringify({ one_time_keys: { [target.userId]: { [target.deviceId]: ALGORITHM } } })
  return { method: 'POST', path: CLAIM, token, body }
}

/** Uploads `count` new keys. */
export function uploadOf({ userId, deviceId, token }: FilledDevice, count: number, from: number): Request {
  const keys = Array.from({ length: count }, (_, i) => makeKey(userId, deviceId, from + i))
  const byName = keys.map((key) => [`${ALGORITHM}:${key.keyId}`, JSON.parse(key.json) as object])
  const body = JSON.stringify({ one_time_keys: Object.fromEntries(byName) })
  return { method: 'POST', path: '/_matrix/client/v3/keys/upload', token, body }
}

/** Syncs with nothing to report, because each device has made its first one. */
export async function idleSyncs(url: string, devices: readonly FilledDevice[]): Promise<Request[]> {
  const connection = await Connection.to(url)
  const requests: Request[] = []
  for (const { token } of devices) {
    const { body } = await connection.send({ method: 'GET', path: '/_matrix/client/v3/sync', token })
    const since = (JSON.parse(body.toString()) as { next_batch: string }).next_batch
    requests.push({ method: 'GET', path: `/_matrix/client/v3/sync?timeout=0&since=${since}`, token })
  }
  connection.close()
  return requests
}

/**
 * Checks that every claim returns a distinct key. Devices have fallback keys, so a false miss shows as a repeated key,
 * and an empty answer as a claim without a key.
 */
export class ClaimedKeys {
  readonly #seen = new Set<string>()
  #claims = 0

  note(body: Buffer): void {
    this.#claims++
    const [, key] = /"key":"([^"]+)"/.exec(body.toString('latin1')) ?? []
    if (key !== undefined) this.#seen.add(key)
  }

  /** Number of claims without a distinct key. */
  get missing(): number {
    return this.#claims - this.#seen.size
  }

  /** Describes the failure; undefined if there is none. */
  fault(name: string): string | undefined {
    if (this.missing === 0) return undefined
    return `${name}: ${this.#claims} claims got ${this.#seen.size} distinct keys`
  }
}
