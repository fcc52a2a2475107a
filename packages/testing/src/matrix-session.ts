/** A device's session on a Matrix server over plain HTTP, without cryptography. */

/** JSON of an answer, untyped for tests. */
// oxlint-disable-next-line typescript/no-explicit-any
export type AnyJson = any

export type Answer = { readonly status: number; readonly body: AnyJson }

export type Fetch = (input: string | URL | Request, init?: RequestInit) => Promise<Response>

export const PASSWORD = 'correct horse battery staple'

export type Credentials = Pick<MatrixSession, 'baseUrl' | 'userId' | 'deviceId' | 'token'>

export class MatrixSession {
  readonly baseUrl: string
  readonly userId: string
  readonly deviceId: string
  readonly token: string
  readonly #fetch: Fetch

  private constructor(baseUrl: string, userId: string, deviceId: string, token: string, fetch: Fetch) {
    this.baseUrl = baseUrl
    this.userId = userId
    this.deviceId = deviceId
    this.token = token
    this.#fetch = fetch
  }

  /** Logs a device in; creates the account first if needed. */
  static async signIn(baseUrl: string, user: string, deviceId: string): Promise<MatrixSession> {
    const registered = await request(baseUrl, 'POST', '/_matrix/client/v3/register', {
      username: user,
      password: PASSWORD,
      inhibit_login: true,
      auth: { type: 'm.login.dummy' },
    })
    if (registered.status !== 200 && registered.body.errcode !== 'M_USER_IN_USE') {
      throw new Error(`register ${user}: ${JSON.stringify(registered.body)}`)
    }
    const { status, body } = await request(baseUrl, 'POST', '/_matrix/client/v3/login', {
      type: 'm.login.password',
      identifier: { type: 'm.id.user', user },
      password: PASSWORD,
      device_id: deviceId,
    })
    if (status !== 200) throw new Error(`login ${user}: ${JSON.stringify(body)}`)
    return new MatrixSession(baseUrl, body.user_id, body.device_id, body.access_token, fetch)
  }

  /** A session that was created elsewhere, from its credentials. */
  static resume({ baseUrl, userId, deviceId, token }: Credentials): MatrixSession {
    return new MatrixSession(baseUrl, userId, deviceId, token, fetch)
  }

  /** The same session with another `fetch`. */
  through(fetch: Fetch): MatrixSession {
    return new MatrixSession(this.baseUrl, this.userId, this.deviceId, this.token, fetch)
  }

  /** Calls the client-server API. `path` begins after `/_matrix/client`; a string body is sent unchanged. */
  call(method: string, path: string, body?: unknown): Promise<Answer> {
    return request(this.baseUrl, method, `/_matrix/client${path}`, body, this.token, this.#fetch)
  }

  /** As `call`; returns the body. @throws {Error} when the status is not 200. */
  async ok(method: string, path: string, body?: unknown): Promise<AnyJson> {
    const answer = await this.call(method, path, body)
    if (answer.status !== 200) {
      throw new Error(`${method} ${path}: ${answer.status} ${JSON.stringify(answer.body)}`)
    }
    return answer.body
  }

  /** Sends `count` claims of one device's keys concurrently. */
  claimMany(userId: string, deviceId: string, count: number): Promise<ClaimedKey[]> {
    return Promise.all(Array.from({ length: count }, () => this.claim(userId, deviceId)))
  }

  async claim(userId: string, deviceId: string): Promise<ClaimedKey> {
    const wanted = { [userId]: { [deviceId]: 'signed_curve25519' } }
    const answer = await this.ok('POST', '/v3/keys/claim', { one_time_keys: wanted })
    return claimedKey(answer, userId, deviceId)
  }
}

export type ClaimedKey = {
  /** `signed_curve25519:AAAAHg` */
  readonly name: string
  /** The public key, base64. */
  readonly key: string
  readonly isFallback: boolean
}

/** The key for a device in the answer to a claim. @throws {Error} when there is none. */
export function claimedKey(answer: AnyJson, userId: string, deviceId: string): ClaimedKey {
  const [entry] = Object.entries<AnyJson>(answer.one_time_keys[userId]?.[deviceId] ?? {})
  if (entry === undefined) throw new Error(`no key for ${userId} ${deviceId}: ${JSON.stringify(answer)}`)
  return { name: entry[0], key: entry[1].key, isFallback: entry[1].fallback === true }
}

async function request(
  baseUrl: string,
  method: string,
  path: string,
  body?: unknown,
  token?: string,
  send: Fetch = fetch,
): Promise<Answer> {
  const response = await send(baseUrl + path, {
    method,
    headers: {
      ...(token !== undefined && { authorization: `Bearer ${token}` }),
      ...(body !== undefined && { 'content-type': 'application/json' }),
    },
    ...(body !== undefined && { body: typeof body === 'string' ? body : JSON.stringify(body) }),
  })
  return { status: response.status, body: await response.json() }
}
