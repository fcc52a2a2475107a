/** A sender on raw libolm, which can do what no SDK does: claim and wait, forge, damage and repeat messages. */
import type Olm from '@matrix-org/olm'
import { type ClaimedKey, MatrixSession } from '../../../../test/support/matrix-session.ts'
import { loadOlm } from './manager-olm.ts'

type Target = { readonly userId: string; readonly deviceId: string; readonly identityKey: string }

export type Ciphertext = { readonly type: number; readonly body: string }

export class Sender {
  readonly session: MatrixSession
  readonly account: Olm.Account
  readonly #olm: typeof Olm
  #transactions = 0

  private constructor(session: MatrixSession, olm: typeof Olm) {
    this.session = session
    this.#olm = olm
    this.account = new olm.Account()
    this.account.create()
  }

  static async signIn(baseUrl: string, user: string): Promise<Sender> {
    return new Sender(await MatrixSession.signIn(baseUrl, user, 'SENDER'), await loadOlm())
  }

  get identityKey(): string {
    return JSON.parse(this.account.identity_keys()).curve25519
  }

  claim(to: Target): Promise<ClaimedKey> {
    return this.session.claim(to.userId, to.deviceId)
  }

  /** A first message of a session made with a key. */
  encryptWith(to: Target, oneTimeKey: string, plaintext: string): Ciphertext {
    const session = new this.#olm.Session()
    try {
      session.create_outbound(this.account, to.identityKey, oneTimeKey)
      return session.encrypt(plaintext)
    } finally {
      session.free()
    }
  }

  async send(to: Target, ciphertext: Ciphertext): Promise<void> {
    const content = {
      algorithm: 'm.olm.v1.curve25519-aes-sha2',
      sender_key: this.identityKey,
      ciphertext: { [to.identityKey]: ciphertext },
    }
    const path = `/v3/sendToDevice/m.room.encrypted/${this.#transactions++}`
    await this.session.ok('PUT', path, { messages: { [to.userId]: { [to.deviceId]: content } } })
  }
}

/** The same message with its end damaged: it names the same key, and decrypts to nothing. */
export function damaged({ type, body }: Ciphertext): Ciphertext {
  const end = body.slice(-6) === 'AAAAAA' ? 'BBBBBB' : 'AAAAAA'
  return { type, body: body.slice(0, -6) + end }
}

/** The same pre-key message with one more field, which readers skip: what is outside of its MAC anybody can change. */
export function withUnknownField({ type, body }: Ciphertext): Ciphertext {
  const bytes = Buffer.concat([Buffer.from(body, 'base64'), Buffer.from([0x28, 0x01])])
  return { type, body: bytes.toString('base64').replaceAll('=', '') }
}
