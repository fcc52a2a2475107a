/**
 * The HTTP application: routes from the endpoint table, CORS and OPTIONS everywhere, 404 and 405 as Matrix errors,
 * bodies decoded and validated without coercion (Fastify's default would read `{"all": "true"}` as a reset of all
 * keys).
 */
import cors from '@fastify/cors'
import Fastify, {
  type FastifyInstance,
  type FastifyReply,
  type FastifyRequest,
  type FastifyServerOptions,
  LogController,
} from 'fastify'
import type { JsonObject } from '@latchkey/protocol'
import type { SizeLimits, TrustedProxies } from '../config/config.ts'
import type { Context } from '../context.ts'
import { networkOf } from '../lib/client-network.ts'
import type { Origin, SecurityLog } from '../observe/security-log.ts'
import type { Session } from '../session.ts'
import { authenticate, presentedSession } from './authenticate.ts'
import { BodyBudget } from './body-budget.ts'
import { clientAddress, proxyWarning, trustedProxies } from './client-address.ts'
import { clientApi } from './client-api/index.ts'
import { answerClientError } from './client-error.ts'
import {
  type Cost,
  costOf,
  maxValuesOf,
  namesInWords,
  unitsOfBytes,
  unitsOfNames,
  unitsOfValues,
} from './costs.ts'
import { decodeJson, type JsonRules } from './decode-json.ts'
import {
  Answer,
  ALL_VERSIONS,
  type Call,
  type Endpoint,
  JsonText,
  maxBodyBytes,
  type Result,
} from './endpoint.ts'
import { errorSender } from './errors.ts'
import { InFlight } from './in-flight.ts'
import { Payer } from './payer.ts'
import { healthApi } from './health.ts'
import { holdAnswers } from './hold-answers.ts'
import { refusePipelined } from './connections.ts'
import { authRequest, interact, resumeInteraction } from './interactive.ts'
import { announcedBytes, type BodyBounds, readBody } from './read-body.ts'
import { newRequestId, originOf, REQUEST_ID_HEADER } from './request-origin.ts'
import { explainEnd, requireValidSession } from './session-end.ts'
import { type MethodsByUrl, refuseUnknown } from './refuse-unknown.ts'

declare module 'fastify' {
  interface FastifyRequest {
    /** Session of the request's access token; undefined at public endpoints. */
    session: Session | undefined
    /** Session of an access token that the endpoint does not require. */
    presented: Session | undefined
    /** Body limits of the endpoint; undefined for requests without a route. */
    bodyRules: BodyRules | undefined
    /** Whether it can be refused when its answer is known to be too large. */
    repeatable: boolean
    /** Undefined if limits are off, and before the session is known. */
    payer: Payer | undefined
  }
}

type BodyRules = BodyBounds & Omit<JsonRules, 'onCounted'>

export type App = FastifyInstance

/** Headers that a script in a browser may read. */
const EXPOSED = 'X-Request-Id, Retry-After'

/** Client-chosen path segments (user IDs, filter IDs, transaction IDs) may exceed find-my-way's default of 100. */
const MAX_PARAMETER_LENGTH = 2048
/** Upper bound on the interval at which Node checks for requests that take too long to arrive. */
const MAX_CHECK_INTERVAL_MS = 10_000
/** Share of the in-flight body budget for anonymous requests, so that they cannot use up that of logged-in clients. */
const ANONYMOUS_SHARE = 1 / 4

/** Creates the Fastify instance without routes. It comes first because the context carries its logger. */
export function createApp(
  options: Pick<SizeLimits, 'requestTimeoutMs' | 'connections'> & {
    readonly trustProxy: TrustedProxies
    readonly logLevel: string
    readonly securityLog: SecurityLog
  },
): App {
  const sendError = errorSender(options.securityLog)
  const app = Fastify({
    genReqId: newRequestId,
    requestTimeout: options.requestTimeoutMs,
    http: timeouts(options.requestTimeoutMs),
    clientErrorHandler: answerClientError,
    keepAliveTimeout: 75_000,
    trustProxy: trustedProxies(options.trustProxy),
    exposeHeadRoutes: false,
    logController: new LogController({ disableRequestLogging: true, requestIdLogLabel: 'requestId' }),
    logger: loggerOptions(options.logLevel),
    forceCloseConnections: 'idle',
    // Requests that arrive during shutdown are answered normally: Fastify's own 503 has no Retry-After header.
    return503OnClosing: false,
    ajv: {
      customOptions: {
        coerceTypes: false,
        removeAdditional: false,
        useDefaults: false,
        allErrors: false,
        // Adds the schema and the value to the findings, for error texts.
        verbose: true,
      },
    },
    routerOptions: { maxParamLength: MAX_PARAMETER_LENGTH },
    // These errors skip the route hooks, CORS included; without the header a browser would hide the error.
    frameworkErrors: (error, request, reply) => {
      reply.header('access-control-allow-origin', '*').header('access-control-expose-headers', EXPOSED)
      void sendError(error, request, reply.header(REQUEST_ID_HEADER, request.id))
    },
  })
  app.server.maxConnections = options.connections
  app.decorateRequest('session', undefined)
  app.decorateRequest('presented', undefined)
  app.decorateRequest('bodyRules', undefined)
  app.decorateRequest('repeatable', false)
  app.decorateRequest('payer', undefined)
  app.removeAllContentTypeParsers()
  // Only reads: Fastify closes the connection after an error of a parser, and a complete body gives no reason to.
  app.addContentTypeParser('*', async ({ raw, bodyRules }: FastifyRequest) => {
    if (bodyRules === undefined) throw new Error('body parsed for a request without a route')
    return readBody(raw, bodyRules)
  })
  app.addHook('onSend', (request, _reply, payload, done) => {
    if (typeof payload === 'string') request.payer?.owe(unitsOfBytes(payload.length))
    done()
  })
  app.setErrorHandler(sendError)
  app.addHook('onRequest', (request, reply, done) => done(void reply.header(REQUEST_ID_HEADER, request.id)))
  return app
}

/** Sets both timeouts: Node swaps them if the one for the headers is longer, which it is by default. */
function timeouts(requestTimeoutMs: number): object {
  return {
    requestTimeout: requestTimeoutMs,
    headersTimeout: requestTimeoutMs,
    connectionsCheckingInterval: Math.min(requestTimeoutMs, MAX_CHECK_INTERVAL_MS),
  }
}

function loggerOptions(level: string): NonNullable<FastifyServerOptions['logger']> {
  return level === 'silent'
    ? false
    : { level, redact: ['req.headers.authorization', 'req.url'], stream: process.stderr }
}

/** Registers every endpoint. */
export async function addRoutes(app: App, context: Context): Promise<void> {
  await app.register(cors, {
    origin: '*',
    methods: ['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS'],
    exposedHeaders: EXPOSED,
    allowedHeaders: ['X-Requested-With', 'Content-Type', 'Authorization', 'Date'],
    strictPreflight: false,
  })
  app.addHook('onRequest', proxyWarning(context))
  const { sizes } = context.config
  const anonymousBytes = sizes.bodyBytesInFlight * ANONYMOUS_SHARE
  const anonymous = new BodyBudget(anonymousBytes)
  const users = new BodyBudget(sizes.bodyBytesInFlight - anonymousBytes)
  const inFlight = context.config.rates && new InFlight(sizes)
  const endpoints = [...healthApi, ...clientApi(context.config)]
  // Before the routes: a hook applies only to routes added after it.
  const refuse = refuseUnknown(methodsOf(endpoints))
  app.addHook('onRequest', (request, reply, done) =>
    done(refuse(request, reply) ?? refusePipelined(request, reply)),
  )
  holdAnswers(app, context)
  for (const endpoint of endpoints) {
    const cost = costOf(endpoint)
    const bodyRules: BodyRules = {
      maxBytes: maxBodyBytes(endpoint, sizes),
      budget: endpoint.auth ? users : anonymous,
      exactNumbers: endpoint.exactNumbers ?? false,
      maxDepth: sizes.jsonDepth,
      maxValues: maxValuesOf(cost, context.config),
      accepted: namesInWords(cost, context.config),
    }
    for (const url of urlsOf(endpoint)) addRoute(app, { context, endpoint, url, bodyRules, inFlight })
  }
}

function methodsOf(endpoints: readonly Endpoint[]): MethodsByUrl {
  const methodsByUrl = new Map<string, Set<string>>()
  for (const endpoint of endpoints) {
    for (const url of urlsOf(endpoint))
      methodsByUrl.set(url, (methodsByUrl.get(url) ?? new Set()).add(endpoint.method))
  }
  return methodsByUrl
}

function urlsOf(endpoint: Endpoint): string[] {
  if (/^\/(_matrix|health)\//.test(endpoint.path)) return [endpoint.path]
  return (endpoint.versions ?? ALL_VERSIONS).map((version) => `/_matrix/client/${version}${endpoint.path}`)
}

type Route = {
  readonly context: Context
  readonly endpoint: Endpoint
  readonly url: string
  readonly bodyRules: BodyRules
  readonly inFlight: InFlight | undefined
}

function addRoute(app: App, { context, endpoint, url, bodyRules, inFlight }: Route): void {
  const cost = costOf(endpoint)
  app.route({
    method: endpoint.method,
    url,
    ...(endpoint.body && { schema: { body: endpoint.body } }),
    // Authenticates before the body is read, so that an anonymous client cannot send ten megabytes first.
    onRequest: async (request) => {
      // The content type is ignored: Fastify would refuse unusual types that some clients send.
      delete request.headers['content-type']
      request.bodyRules = bodyRules
      request.repeatable = endpoint.repeatable ?? endpoint.method === 'GET'
      if (endpoint.auth) request.session = await authenticate(context, request, queryOf(request), endpoint)
      if (endpoint.presentsToken) request.presented = await presentedSession(context.store.accounts, request)
      const { presented } = request
      await endpoint.admit?.({ context, ip: clientAddress(request), presented })
      request.payer = payerOf(context, request, cost)
      request.payer?.pay(cost.request + unitsOfBytes(announcedBytes(request.raw, bodyRules)))
    },
    preValidation: [
      // A missing body is an empty one (decode-json.ts): Fastify does not call the parser for it.
      async (request) => {
        request.body = request.body === undefined ? {} : await decodeBody(request, bodyRules)
      },
      ...(endpoint.interactive ? [resumeInteraction(context, endpoint)] : []),
      async ({ body, payer }) => {
        const units = unitsOfNames(cost, body, context.config)
        payer?.pay(units)
      },
    ],
    handler: (request, reply) => {
      const { session, payer } = request
      const work = (): Promise<FastifyReply> =>
        handle(request, reply).catch((error: unknown) => explainEnd(context.store.accounts, session, error))
      if (inFlight === undefined || session === undefined || cost.waits) return work()
      return inFlight.run(session, payer?.paid ?? 0, work)
    },
  })
  const handle = async (request: FastifyRequest, reply: FastifyReply): Promise<FastifyReply> => {
    const { session } = request
    context.answers.requireRoom(session?.userRef, endpoint.answerBytes?.(context.config.sizes) ?? 0)
    if (endpoint.method !== 'GET' && !endpoint.sessionProvedByStore)
      await requireValidSession(context.store.accounts, session)
    if (session !== undefined) context.store.accounts.seen(session, clientAddress(request), context.now())
    const answer = async (): Promise<Result> =>
      endpoint.handle(new RequestCall(context, endpoint, request, reply))
    return send(reply, await (endpoint.interactive ? interact(context, endpoint, request, answer) : answer()))
  }
}

async function decodeBody({ body, raw, payer }: FastifyRequest, bodyRules: BodyRules): Promise<unknown> {
  const bytes = body as Buffer
  payer?.pay(unitsOfBytes(bytes.length) - unitsOfBytes(announcedBytes(raw, bodyRules)))
  return decodeJson(bytes, { ...bodyRules, onCounted: (values) => payer?.pay(unitsOfValues(values)) })
}

/** A user pays from one bucket for all devices, an anonymous request from that of its network. */
function payerOf({ limiters, now }: Context, request: FastifyRequest, cost: Cost): Payer | undefined {
  const { session } = request
  const buckets = session === undefined ? limiters.workPerAddress : limiters.workPerUser
  const key = session === undefined ? networkOf(clientAddress(request)) : String(session.userRef)
  return buckets && new Payer(buckets, key, now, cost)
}

/** A call over a Fastify request. The signal is created on first use, because it costs as much as a claim. */
class RequestCall implements Call<unknown> {
  readonly context: Context
  readonly body: unknown
  readonly params: Readonly<Record<string, string>>
  readonly query: Readonly<Record<string, string>>
  readonly ip: string
  readonly #endpoint: Endpoint
  readonly #request: FastifyRequest
  readonly #reply: FastifyReply

  constructor(context: Context, endpoint: Endpoint, request: FastifyRequest, reply: FastifyReply) {
    this.context = context
    this.body = request.body
    this.params = request.params as Record<string, string>
    this.query = queryOf(request)
    this.ip = clientAddress(request)
    this.#endpoint = endpoint
    this.#request = request
    this.#reply = reply
  }

  get session(): Session {
    const { session } = this.#request
    if (session === undefined) throw new Error('session read at a public endpoint')
    return session
  }

  /** A getter, because handlers take it out of the call. */
  get confirm(): Call<unknown>['confirm'] {
    return (stages) =>
      this.context.interactiveAuth.require(
        authRequest(this.#endpoint, this.#request, this.body as JsonObject),
        stages,
      )
  }

  get presented(): Session | undefined {
    return this.#request.presented
  }

  get origin(): Origin {
    return originOf(this.#request)
  }

  get signal(): AbortSignal {
    // The close event has already fired for a client that disconnected.
    if (this.#reply.raw.destroyed) return AbortSignal.abort()
    const controller = new AbortController()
    this.#reply.raw.once('close', () => controller.abort())
    return controller.signal
  }
}

/** Keeps the last value of a repeated parameter. */
function queryOf(request: FastifyRequest): Record<string, string> {
  const query = request.query as Record<string, string | string[]>
  for (const [name, value] of Object.entries(query))
    if (Array.isArray(value)) query[name] = value.at(-1) ?? ''
  return query as Record<string, string>
}

function send(reply: FastifyReply, result: Result): FastifyReply {
  if (result instanceof JsonText) return reply.type('application/json; charset=utf-8').send(result.text)
  if (result instanceof Answer) return reply.code(result.status).send(result.body)
  return reply.send(result)
}
