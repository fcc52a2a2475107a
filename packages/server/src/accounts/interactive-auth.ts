/**
 * User-interactive authentication (client-server API, "User-Interactive Authentication API"): the proofs that a
 * client gives before an operation is carried out.
 *
 *     no auth -> challenge (a session) -> auth with the session, a stage at a time -> a flow is complete -> carried out
 *
 * A session serves one operation of one user, once, and lasts 15 minutes. `auth` with a stage but without a session is
 * accepted as well, as other servers do: it proves the same.
 */
import { randomBytes } from 'node:crypto'
import { isJsonObject, type JsonObject } from '@latchkey/protocol'
import { LRUCache } from 'lru-cache'
import type { TokenBuckets } from '../lib/token-bucket.ts'
import { badJson, forbidden, missingParam, quoted } from '../matrix-error.ts'
import type { Session } from '../session.ts'
import { hashToken } from './access-token.ts'
import { checkPassword, countConfirmation, type PasswordCheckDeps } from './check-password.ts'
import { TOKEN_NOT_USABLE } from './registration.ts'
import { meantUserId } from './user-name.ts'

export type Stage = 'm.login.password' | 'm.login.dummy' | 'm.login.registration_token'

export type AuthRequest = {
  /** The `auth` member of the body, as it came. */
  readonly auth: unknown
  /** Alternatives: all stages of any one of them suffice. */
  readonly flows: readonly (readonly Stage[])[]
  /** The operation to carry out: method, path template and user. */
  readonly operation: string
  /** The session of the request. Without it no flow can ask for a password. */
  readonly session?: Session
}

/** Proofs in addition to the user's identity. */
export type AuthResult = { readonly registrationTokenHash?: string }

/** More proof is needed: answered 401 with this body. */
export class AuthenticationChallenge extends Error {
  override readonly name = 'AuthenticationChallenge'
  readonly body: JsonObject

  constructor(body: JsonObject) {
    super('more authentication is needed')
    this.body = body
  }
}

type Progress = {
  readonly operation: string
  readonly expiresTs: number
  readonly completed: Set<Stage>
  registrationTokenHash?: string
}

/** The reason why a stage was not passed. The code is one of the protocol's. */
type Refusal = { readonly errcode: 'M_FORBIDDEN' | 'M_INVALID_PARAM'; readonly error: string }

const SESSION_LIFETIME_MS = 15 * 60 * 1000
const MAX_SESSIONS = 10_000

export type InteractiveAuthDeps = PasswordCheckDeps & {
  readonly serverName: string
  readonly now: () => number
  /** Undefined: tries are not limited. */
  readonly triesPerUser?: TokenBuckets
}

export class InteractiveAuth {
  readonly #deps: InteractiveAuthDeps
  readonly #sessions = new LRUCache<string, Progress>({ max: MAX_SESSIONS })

  constructor(deps: InteractiveAuthDeps) {
    this.#deps = deps
  }

  /**
   * Resolves when a flow is complete, and ends the session then.
   *
   * @throws {AuthenticationChallenge} when more is needed, or a stage was not passed.
   * @throws {MatrixError} 400 for a malformed `auth`, 403 for another user's identifier, 429 after too many tries.
   */
  async require(request: AuthRequest): Promise<AuthResult> {
    const auth = decodeAuth(request.auth)
    const id = optionalString(auth, 'session')
    const stage = optionalString(auth, 'type')
    const progress = id === undefined ? this.#begin(request) : this.#find(id, request)
    if (progress === undefined) throw this.#challenge(request, undefined, this.#begin(request))
    const refusal = stage === undefined ? undefined : await this.#attempt(stage, auth, request, progress)
    const complete = request.flows.some((flow) => flow.every((step) => progress.completed.has(step)))
    if (refusal !== undefined || !complete) throw this.#challenge(request, id, progress, refusal)
    if (id !== undefined) this.#sessions.delete(id)
    const { registrationTokenHash } = progress
    return registrationTokenHash === undefined ? {} : { registrationTokenHash }
  }

  #begin({ operation }: AuthRequest): Progress {
    return { operation, expiresTs: this.#deps.now() + SESSION_LIFETIME_MS, completed: new Set() }
  }

  #find(id: string, { operation }: AuthRequest): Progress | undefined {
    const progress = this.#sessions.get(id)
    return progress?.operation === operation && progress.expiresTs > this.#deps.now() ? progress : undefined
  }

  #challenge(
    request: AuthRequest,
    id: string | undefined,
    progress: Progress,
    refusal?: Refusal,
  ): AuthenticationChallenge {
    const { session, completed } = this.#keep(request, id, progress)
    return new AuthenticationChallenge({
      session,
      flows: request.flows.map((stages) => ({ stages })),
      params: {},
      completed: [...completed],
      ...refusal,
    })
  }

  /** Keeps passed stages. A session that a concurrent request has used up in the meantime no longer counts. */
  #keep(
    request: AuthRequest,
    id: string | undefined,
    progress: Progress,
  ): { session: string; completed: ReadonlySet<Stage> } {
    if (id !== undefined && this.#sessions.get(id) === progress) {
      return { session: id, completed: progress.completed }
    }
    const session = randomBytes(18).toString('base64url')
    const kept = id === undefined ? progress : this.#begin(request)
    this.#sessions.set(session, kept)
    return { session, completed: kept.completed }
  }

  /** Undefined when the stage was passed. */
  async #attempt(
    stage: string,
    auth: JsonObject,
    request: AuthRequest,
    progress: Progress,
  ): Promise<Refusal | undefined> {
    const asked = request.flows.flat().find((candidate) => candidate === stage)
    if (asked === undefined) {
      const error = `The authentication type ${quoted(stage)} is not one of those this operation takes.`
      return { errcode: 'M_INVALID_PARAM', error }
    }
    const refusal = await this.#perform(asked, auth, request, progress)
    if (refusal === undefined) progress.completed.add(asked)
    return refusal
  }

  #perform(
    stage: Stage,
    auth: JsonObject,
    request: AuthRequest,
    progress: Progress,
  ): Refusal | undefined | Promise<Refusal | undefined> {
    switch (stage) {
      case 'm.login.dummy':
        return undefined
      case 'm.login.password':
        return this.#password(auth, request)
      case 'm.login.registration_token':
        return this.#registrationToken(auth, progress)
    }
  }

  async #password(auth: JsonObject, { session }: AuthRequest): Promise<Refusal | undefined> {
    const user = userOf(auth)
    const password = optionalString(auth, 'password')
    if (password === undefined) throw missingParam('auth lacks the member "password".')
    if (session === undefined) throw new Error('a flow asks for a password in a request without a session')
    if (meantUserId(user, this.#deps.serverName) !== session.userId) {
      throw forbidden('auth names another user than the one who is logged in.')
    }
    countConfirmation(this.#deps.triesPerUser, session.userId, this.#deps.now())
    const account = await checkPassword(this.#deps, session.userId, password)
    return account === undefined ? { errcode: 'M_FORBIDDEN', error: 'The password is wrong.' } : undefined
  }

  async #registrationToken(auth: JsonObject, progress: Progress): Promise<Refusal | undefined> {
    const token = optionalString(auth, 'token')
    if (token === undefined) throw missingParam('auth lacks the member "token".')
    const tokenHash = hashToken(token)
    if (!(await this.#deps.accounts.registrationTokenValid(tokenHash, this.#deps.now()))) {
      return { errcode: 'M_FORBIDDEN', error: TOKEN_NOT_USABLE }
    }
    progress.registrationTokenHash = tokenHash
    return undefined
  }
}

function decodeAuth(auth: unknown): JsonObject {
  if (auth === undefined || auth === null) return {}
  if (!isJsonObject(auth)) throw badJson('auth: expected an object.')
  return auth
}

function optionalString(auth: JsonObject, member: string): string | undefined {
  const value = Object.hasOwn(auth, member) ? auth[member] : undefined
  if (value === undefined || value === null) return undefined
  if (typeof value !== 'string') throw badJson(`auth.${member}: expected a string.`)
  return value
}

/** `identifier`, or the member `user` that it replaced (deprecated since r0.4). */
function userOf(auth: JsonObject): string {
  const identifier = auth['identifier']
  const named = isJsonObject(identifier) ? optionalString(identifier, 'user') : optionalString(auth, 'user')
  if (named === undefined) {
    throw missingParam('auth: expected "identifier" with the type "m.id.user" and a "user".')
  }
  return named
}
