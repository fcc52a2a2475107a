/**
 * User-interactive authentication (client-server API, "User-Interactive Authentication API"): the proof that a client
 * gives before an operation is carried out. Every flow has one stage.
 *
 *     no auth -> challenge (a session) -> auth with the session and a proof -> carried out, answer kept in the session
 *
 * A session (auth-session.ts) serves one operation, once. It remembers the first body, so the second request may
 * have only `auth`; a body that comes with the proof counts. The operation's transaction finishes the session: of
 * requests that race, one takes effect, and all get its answer. `auth` without a session is accepted as well, as other
 * servers do: it proves the same.
 */
import type { JsonObject } from '@latchkey/protocol'
import type { TokenBuckets } from '../lib/token-bucket.ts'
import { forbidden, MatrixError, missingParam, quoted } from '../matrix-error.ts'
import type { Session } from '../session.ts'
import { hashToken } from './access-token.ts'
import { type AuthData, decodeAuth } from './auth-data.ts'
import {
  AUTH_SESSION_MS,
  beginAuthSession,
  hashAuthSessionId,
  hashBody,
  isOperation,
  type Memory,
  newAuthSessionId,
  sealAnswer,
  unseal,
  withoutAuth,
} from './auth-session.ts'
import { checkPassword, countConfirmation, type PasswordCheckDeps } from './check-password.ts'
import { type AuthOwner, AuthSessionEnded, type AuthSessionStore, type FinishedAuth } from './port.ts'
import { TOKEN_NOT_USABLE } from './registration.ts'
import { meantUserId } from './user-name.ts'

export type Stage = 'm.login.password' | 'm.login.dummy' | 'm.login.registration_token'

/** A request for an operation that needs a proof. */
export type AuthRequest = {
  /** With its member `auth`. */
  readonly body: JsonObject
  /** Whether such a body has members besides `auth`. */
  readonly hasMembers: boolean
  /** Method, path and user. A session is valid for one. */
  readonly operation: string
  /** The session of the access token. Without it no flow can ask for a password. */
  readonly session?: Session
  /** The client's network, which owns sessions that begin without an access token. */
  readonly network: string
}

export type Proof = {
  readonly registrationTokenHash?: string
  /** The end of the session with the operation's answer; empty for a proof without a session. */
  finishing(answer: JsonObject): { readonly finishes?: FinishedAuth }
}

/** More proof is needed: answered 401 with this body. */
export class AuthenticationChallenge extends Error {
  override readonly name = 'AuthenticationChallenge'
  readonly body: JsonObject

  constructor(body: JsonObject) {
    super('more authentication is needed')
    this.body = body
  }
}

/** The reason why a stage was not passed. The code is one of the protocol's. */
type Refusal = { readonly errcode: 'M_FORBIDDEN' | 'M_INVALID_PARAM'; readonly error: string }

type Passed = { readonly registrationTokenHash?: string }

export type InteractiveAuthDeps = PasswordCheckDeps & {
  readonly sessions: AuthSessionStore
  readonly serverName: string
  readonly now: () => number
  /** Undefined: tries are not limited. */
  readonly triesPerUser?: TokenBuckets
}

export class InteractiveAuth {
  readonly #deps: InteractiveAuthDeps

  constructor(deps: InteractiveAuthDeps) {
    this.#deps = deps
  }

  /**
   * Continues a session, before the body is validated. Resolves with the answer of a finished session, or the body,
   * which is the remembered one if the request has only `auth`.
   *
   * @throws {MatrixError} 403 when the session is for another operation, or finished with another body; 400 when a
   *   request that leaves its body out names an unknown session.
   */
  async resume({
    body,
    hasMembers,
    operation,
  }: AuthRequest): Promise<{ readonly answer: JsonObject } | { readonly body: JsonObject }> {
    const { session: id } = decodeAuth(body)
    if (id === undefined) return { body }
    const memory = await this.#recall(id, operation)
    const isBare = hasMembers && Object.keys(withoutAuth(body)).length === 0
    if (memory === undefined && isBare) throw unknownAuthSession()
    if (memory?.done === undefined)
      return { body: isBare ? { ...memory?.body, auth: body['auth'] ?? null } : body }
    if (!isBare && memory.done.bodyHash !== hashBody(body)) {
      throw forbidden('This authentication session is complete; another operation needs a new one.')
    }
    return { answer: memory.done.answer }
  }

  /**
   * Resolves with a proof of one of the stages.
   *
   * @throws {AuthenticationChallenge} without a proof, or when it is wrong.
   * @throws {AuthSessionEnded} when another request has finished the session since `resume`.
   * @throws {MatrixError} 400 for a malformed `auth`, 403 for another user's identifier, 429 after too many tries.
   */
  async require(request: AuthRequest, stages: readonly Stage[]): Promise<Proof> {
    const auth = decodeAuth(request.body)
    const id = await this.#openSession(auth, request)
    // A proof under an unknown session is not used: no session remembers what it was given for.
    const isUsable = auth.session === undefined || id !== undefined
    if (!isUsable || auth.type === undefined) throw await this.#challenge(request, stages, id)
    const outcome = await this.#attempt(auth, request, stages)
    if ('errcode' in outcome) throw await this.#challenge(request, stages, id, outcome)
    return {
      ...outcome,
      finishing: (answer) => (id === undefined ? {} : { finishes: this.#finished(id, request.body, answer) }),
    }
  }

  /**
   * The ID of the session that a request continues; undefined for none, or an unknown one.
   *
   * @throws {AuthSessionEnded} when another request has finished it since `resume`.
   */
  async #openSession({ session: id }: AuthData, { operation }: AuthRequest): Promise<string | undefined> {
    if (id === undefined) return undefined
    const memory = await this.#recall(id, operation)
    if (memory?.done !== undefined) throw new AuthSessionEnded()
    return memory && id
  }

  /** @throws {MatrixError} 403 when the session is for another operation. */
  async #recall(id: string, operation: string): Promise<Memory | undefined> {
    const stored = await this.#deps.sessions.find(hashAuthSessionId(id), this.#deps.now())
    if (stored === undefined) return undefined
    if (!isOperation(stored, operation)) {
      throw forbidden(
        'This authentication session is for another operation; begin a new one without "session".',
      )
    }
    return unseal(id, stored.sealed)
  }

  #finished(id: string, body: JsonObject, answer: JsonObject): FinishedAuth {
    const now = this.#deps.now()
    return {
      idHash: hashAuthSessionId(id),
      sealed: sealAnswer(id, body, answer),
      expiresTs: now + AUTH_SESSION_MS,
      now,
    }
  }

  /** Begins a session unless the request continues one. */
  async #challenge(
    request: AuthRequest,
    stages: readonly Stage[],
    id: string | undefined,
    refusal?: Refusal,
  ): Promise<AuthenticationChallenge> {
    const session = id ?? (await this.#begin(request))
    const flows = stages.map((stage) => ({ stages: [stage] }))
    return new AuthenticationChallenge({ session, flows, params: {}, completed: [], ...refusal })
  }

  async #begin({ body, operation, session, network }: AuthRequest): Promise<string> {
    const id = newAuthSessionId()
    const owner: AuthOwner =
      session === undefined
        ? { kind: 'network', name: network }
        : { kind: 'user', name: String(session.userRef) }
    await this.#deps.sessions.add(beginAuthSession(id, { owner, operation, body, now: this.#deps.now() }))
    return id
  }

  async #attempt(auth: AuthData, request: AuthRequest, stages: readonly Stage[]): Promise<Passed | Refusal> {
    const stage = stages.find((candidate) => candidate === auth.type)
    switch (stage) {
      case undefined: {
        const error = `The authentication type ${quoted(auth.type ?? '')} is not one of those this operation takes.`
        return { errcode: 'M_INVALID_PARAM', error }
      }
      case 'm.login.dummy':
        return {}
      case 'm.login.password':
        return this.#password(auth, request)
      case 'm.login.registration_token':
        return this.#registrationToken(auth)
    }
  }

  async #password(auth: AuthData, { session }: AuthRequest): Promise<Passed | Refusal> {
    const user = auth.user()
    if (auth.password === undefined) throw missingParam('auth lacks the member "password".')
    if (session === undefined) throw new Error('a flow asks for a password in a request without a session')
    if (meantUserId(user, this.#deps.serverName) !== session.userId) {
      throw forbidden('auth names another user than the one who is logged in.')
    }
    countConfirmation(this.#deps.triesPerUser, session.userId, this.#deps.now())
    const account = await checkPassword(this.#deps, session.userId, auth.password)
    return account === undefined ? { errcode: 'M_FORBIDDEN', error: 'The password is wrong.' } : {}
  }

  async #registrationToken({ token }: AuthData): Promise<Passed | Refusal> {
    if (token === undefined) throw missingParam('auth lacks the member "token".')
    const registrationTokenHash = hashToken(token)
    if (await this.#deps.accounts.registrationTokenValid(registrationTokenHash, this.#deps.now())) {
      return { registrationTokenHash }
    }
    return { errcode: 'M_FORBIDDEN', error: TOKEN_NOT_USABLE }
  }
}

/** 400: a session has expired, or made room for others. */
export function unknownAuthSession(): MatrixError {
  return new MatrixError(
    400,
    'M_UNKNOWN',
    'The authentication session is unknown or has expired: send the whole request again, without "auth".',
  )
}
