/**
 * What an endpoint of the client-server API is: a method, a path, a body schema, and a handler that decodes, calls one
 * domain function and encodes. One file of client-api/ each; app.ts turns them into routes.
 */
import type { Static, TSchema } from 'typebox'
import type { SizeLimits } from '../config/config.ts'
import type { Context } from '../context.ts'
import type { Session } from '../session.ts'

/** An answer whose JSON text is already made (claims return stored text as it is). */
export class JsonText {
  readonly text: string
  constructor(text: string) {
    this.text = text
  }
}

/** An answer with a status other than 200 (a user-interactive challenge is no error of the client's). */
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
  /** Query parameters; a repeated one counts with its last value. */
  readonly query: Readonly<Record<string, string>>
  /** The client's address. */
  readonly ip: string
  /** Aborted when the client goes away. */
  readonly signal: AbortSignal
}

export type Result = object | JsonText | Answer

type Common = {
  readonly method: 'GET' | 'POST' | 'PUT' | 'DELETE'
  /** Below `/_matrix/client/VERSION`, or the whole of it, parameters as `:name`. */
  readonly path: string
  /** The VERSIONs it is served at; by default r0, v3 and unstable. */
  readonly versions?: readonly string[]
  /** How large a body it takes; by default a small one, and never more than the configuration has for any. */
  readonly bodyBytes?: (sizes: SizeLimits) => number
  /** For bodies of what is signed: numbers that canonical JSON cannot have arrive as NaN, to be refused by name. */
  readonly exactNumbers?: boolean
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
/** A character of stored JSON may have been sent as `\\u00e9`, six bytes for one. */
const ESCAPED_BYTES_PER_BYTE = 6

/** For endpoints whose requests are about many keys, users or devices. */
export function largeBody({ bodyBytes }: SizeLimits): number {
  return bodyBytes
}

/** For one document of at most so many bytes as it is stored. */
export function documentBody(storedBytes: number): number {
  return Math.max(SMALL_BODY_BYTES, storedBytes * ESCAPED_BYTES_PER_BYTE)
}

export function maxBodyBytes({ bodyBytes }: Endpoint, sizes: SizeLimits): number {
  return Math.min(bodyBytes?.(sizes) ?? SMALL_BODY_BYTES, sizes.bodyBytes)
}

/** The versions that peers serve the key endpoints at. */
export const ALL_VERSIONS = ['r0', 'v3', 'unstable'] as const

/** An endpoint for whoever holds an access token. */
export function endpoint<const Schema extends TSchema | undefined = undefined>(
  definition: Common & {
    readonly body?: Schema
    readonly handle: Handler<Schema, { readonly session: Session }>
  },
): Endpoint {
  return { ...definition, auth: true } as Endpoint
}

/** An endpoint for everyone. */
export function publicEndpoint<const Schema extends TSchema | undefined = undefined>(
  definition: Common & { readonly body?: Schema; readonly handle: Handler<Schema, unknown> },
): Endpoint {
  return { ...definition, auth: false } as Endpoint
}
