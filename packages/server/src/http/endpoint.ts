/**
 * Definition of an endpoint of the client-server API: a method, a path, a body schema, and a handler that decodes,
 * calls one domain function and encodes. client-api/ has one file per endpoint; app.ts turns them into routes.
 */
import type { Static, TSchema } from 'typebox'
import type { Proof, Stage } from '../accounts/interactive-auth.ts'
import type { SizeLimits } from '../config/config.ts'
import type { Context } from '../context.ts'
import type { Origin } from '../observe/security-log.ts'
import type { Session } from '../session.ts'

/** A response that is already JSON text (claims return stored text unchanged). */
export class JsonText {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
}

/** A response with a status other than 200 that is not an error (a user-interactive authentication challenge). */
export class Answer {
  readonly status: number
  readonly body: object
  constructor(status: number, body: object) {
    this.status = status
    this.body = body
  }
}

export type Call<Body> = {
  readonly context: Context
  readonly body: Body
  /** Path parameters, percent-decoded. */
  readonly params: Readonly<Record<string, string>>
  /** Query parameters; the last value of a repeated one. */
  readonly query: Readonly<Record<string, string>>
  /** The client's address. */
  readonly ip: string
  /** The request, its address and user, for the logs. */
  readonly origin: Origin
  /** The session of the access token at an endpoint that does not require one (`presentsToken`). */
  readonly presented: Session | undefined
  /** Aborted when the client disconnects. */
  readonly signal: AbortSignal
  /**
   * Resolves with the proof of one of the stages, or answers the request with a challenge. For endpoints that are
   * `interactive`.
   */
  readonly confirm: (stages: readonly Stage[]) => Promise<Proof>
}

export type Admission = Pick<Call<unknown>, 'context' | 'ip' | 'presented'>

export type Result = object | JsonText | Answer

type Common = {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE'
  /** Relative to `/_matrix/client/VERSION`, or the full path; parameters as `:name`. */
  readonly path: string
  /** API versions it is served under; r0, v3 and unstable by default. */
  readonly versions?: readonly string[]
  /** Maximum body size; 64 KiB by default, and never more than the configured maximum. */
  readonly bodyBytes?: (sizes: SizeLimits) => number
  /**
   * The store proves the session in the transaction that the handler runs. Others have it looked up again once the body
   * has arrived, because the session may have ended meanwhile.
   */
  readonly sessionProvedByStore?: true
  /**
   * Runs before the body is read, and may refuse the request: a refusal costs no parse. For endpoints without
   * authentication.
   */
  readonly admit?: (admission: Admission) => void | Promise<void>
  /** A public endpoint at which an access token, if one is sent and valid, proves something. */
  readonly presentsToken?: true
  /** Has user-interactive authentication; the second request may leave out the rest of the body (interactive.ts). */
  readonly interactive?: true
  /** Locked users may call it (accounts/locked-users.ts). */
  readonly allowsLocked?: true
  /** For bodies with signed JSON: numbers outside canonical JSON become Infinity, which the decoder refuses. */
  readonly exactNumbers?: boolean
  /** Size of an answer that may be large; the request is refused ahead while its user has no room for it. */
  readonly answerBytes?: (sizes: SizeLimits) => number
  /** A request that changes nothing, so that it can be refused when its answer is known to be too large; GET is one. */
  readonly repeatable?: true
}

type Handler<Schema extends TSchema | undefined, Auth> = (
  call: Call<Schema extends TSchema ? Static<Schema> : unknown> & Auth,
) => Result | Promise<Result>

export type Endpoint = Common & {
  readonly auth: boolean
  readonly body?: TSchema
  readonly handle: (call: Call<unknown> & { readonly session: Session }) => Result | Promise<Result>
}

const SMALL_BODY_BYTES = 64 * 1024
/** A stored character may arrive escaped as `\\u00e9`: six bytes for one. */
const ESCAPED_BYTES_PER_BYTE = 6

/** Body size for requests that name many keys, users or devices. */
export function largeBody({ bodyBytes }: SizeLimits): number {
  return bodyBytes
}

/** Body size for one document of at most `storedBytes` when stored. */
export function documentBody(storedBytes: number): number {
  return Math.max(SMALL_BODY_BYTES, storedBytes * ESCAPED_BYTES_PER_BYTE)
}

export function maxBodyBytes({ bodyBytes }: Endpoint, sizes: SizeLimits): number {
  return Math.min(bodyBytes?.(sizes) ?? SMALL_BODY_BYTES, sizes.bodyBytes)
}

/** API versions under which other homeservers serve the key endpoints. */
export const ALL_VERSIONS = ['r0', 'v3', 'unstable'] as const

/** An endpoint that requires an access token. */
export function endpoint<const Schema extends TSchema | undefined = undefined>(
  definition: Common & {
    readonly body?: Schema
    readonly handle: Handler<Schema, { readonly session: Session }>
  },
): Endpoint {
  return { ...definition, auth: true } as Endpoint
}

/** An endpoint without authentication. */
export function publicEndpoint<const Schema extends TSchema | undefined = undefined>(
  definition: Common & { readonly body?: Schema; readonly handle: Handler<Schema, unknown> },
): Endpoint {
  return { ...definition, auth: false } as Endpoint
}
