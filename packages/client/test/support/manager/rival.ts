/** Another client on the same Olm account, which publishes keys unknown to the manager. */
import type Olm from '@matrix-org/olm'
import { canonicalJson } from '@latchkey/protocol'
import type { AnyJson, MatrixSession } from '@latchkey/testing/matrix-session.ts'
import { type ManagerDevice, PICKLE_KEY } from './device.ts'
import { loadOlm } from './olm.ts'

export class Rival {
  readonly #session: MatrixSession
  readonly account: Olm.Account

  private constructor(session: MatrixSession, account: Olm.Account) {
    this.#session = session
    this.account = account
  }

  /** A copy of the device's account as it is stored now. */
  static async of(device: ManagerDevice): Promise<Rival> {
    const olm = await loadOlm()
    const { records } = await device.store.read()
    const account = new olm.Account()
    account.unpickle(PICKLE_KEY, JSON.parse(records.get('account/only') ?? '{}').pickle)
    return new Rival(device.session, account)
  }

  /** Uploads one new one-time key under each of the names. */
  async uploadOneTimeKeys(names: readonly string[]): Promise<AnyJson> {
    this.account.mark_keys_as_published()
    this.account.generate_one_time_keys(names.length)
    // libolm lists the newest first.
    const made = Object.values<string>(JSON.parse(this.account.one_time_keys()).curve25519).reverse()
    const keys = Object.fromEntries(names.map((name, i) => [name, this.#signed({ key: made[i] ?? '' })]))
    return this.#session.ok('POST', '/v3/keys/upload', { one_time_keys: keys })
  }

  async uploadFallbackKey(name: string): Promise<AnyJson> {
    this.account.generate_fallback_key()
    const [key = ''] = Object.values<string>(JSON.parse(this.account.unpublished_fallback_key()).curve25519)
    const keys = { [name]: this.#signed({ key, fallback: true }) }
    return this.#session.ok('POST', '/v3/keys/upload', { fallback_keys: keys })
  }

  #signed(key: { key: string; fallback?: true }): AnyJson {
    const { userId, deviceId } = this.#session
    const signature = this.account.sign(canonicalJson(key))
    return { ...key, signatures: { [userId]: { [`ed25519:${deviceId}`]: signature } } }
  }
}
