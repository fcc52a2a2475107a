/** A sender on raw libolm, which can do more than SDKs: delay, forge, damage and repeat messages. */
import type Olm from '@matrix-org/olm'
import { type ClaimedKey, MatrixSession } from '@latchkey/testing/matrix-session.ts'
import { loadOlm } from './olm.ts'

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

/** The same message with its end damaged: it names the same key, and does not decrypt. */
export function damaged({ type, body }: Ciphertext): Ciphertext {
  const end = body.slice(-6) === 'AAAAAA' ? 'BBBBBB' : 'AAAAAA'
  return { type, body: body.slice(0, -6) + end }
}

/** The same pre-key message with an additional field, which some readers skip. */
export function withUnknownField({ type, body }: Ciphertext): Ciphertext {
  return { type, body: base64(Buffer.concat([Buffer.from(body, 'base64'), Buffer.from([0x28, 0x01])])) }
}

/** The same pre-key message, naming another one-time key before its own: libolm reads the last one. */
export function namingFirst({ type, body }: Ciphertext, publicKey: string): Ciphertext {
  const bytes = Buffer.from(body, 'base64')
  const field = Buffer.concat([Buffer.from([0x0a, 32]), Buffer.from(publicKey, 'base64')])
  return { type, body: base64(Buffer.concat([bytes.subarray(0, 1), field, bytes.subarray(1)])) }
}

/** The same pre-key message in other bytes: anyone can change what its MAC does not cover, even the order of fields. */
export function reordered({ type, body }: Ciphertext): Ciphertext {
  const bytes = Buffer.from(body, 'base64')
  const [version, first, second] = [bytes.subarray(0, 1), bytes.subarray(1, 35), bytes.subarray(35, 69)]
  return { type, body: base64(Buffer.concat([version, second, first, bytes.subarray(69)])) }
}

/** The same pre-key message, padded to the given length. */
export function lengthened({ type, body }: Ciphertext, length: number): Ciphertext {
  const bytes = Buffer.from(body, 'base64')
  const padding = Buffer.alloc(Math.floor((length * 3) / 4) - bytes.length, 0x41)
  return { type, body: base64(Buffer.concat([bytes, padding])) }
}

function base64(bytes: Buffer): string {
  return bytes.toString('base64').replaceAll('=', '')
}
