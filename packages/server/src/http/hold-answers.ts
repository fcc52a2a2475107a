/** Counts every answer from the moment its text is known until the client has taken it (answers-in-flight.ts). */
import type { FastifyInstance, FastifyReply, FastifyRequest } from 'fastify'
import type { Context } from '../context.ts'
import type { CutCause } from './answers-in-flight.ts'
import { isStalled } from './connections.ts'
import { originOf } from './request-origin.ts'

type Observers = Pick<Context, 'answers' | 'metrics' | 'securityLog'>

/** Interval of the search for answers that are read too slowly. */
const CUT_SLOW_EVERY_MS = 10_000

/** Call it before routes are added: a hook applies only to routes added after it. */
export function holdAnswers(app: FastifyInstance, context: Observers): void {
  app.addHook('onSend', (request, reply, payload, done) => {
    // The close event has already fired for a client that disconnected.
    if (typeof payload !== 'string' || reply.raw.destroyed) return done()
    try {
      hold(context, request, reply, payload)
      done()
    } catch (error) {
      done(error as Error)
    }
  })
  const timer = setInterval(() => context.answers.cutSlow(), CUT_SLOW_EVERY_MS)
  app.addHook('onClose', (_app, done) => {
    clearInterval(timer)
    done()
  })
}

/** @throws {MatrixError} 429 when the answer does not fit, and the request can be repeated. */
function hold(context: Observers, request: FastifyRequest, { raw }: FastifyReply, text: string): void {
  const { socket } = request.raw
  const cutOff = (cause: CutCause): void => {
    socket.destroy()
    context.metrics?.answerCut(cause)
    const route = request.routeOptions.url ?? ''
    context.securityLog.note('answer_cut_off', originOf(request), { route, cause })
  }
  const release = context.answers.hold({
    user: request.session?.userRef,
    bytes: Buffer.byteLength(text),
    repeatable: request.repeatable && raw.statusCode === 200,
    isBeingWritten: () => raw.socket !== null,
    cutOff,
  })
  raw.once('close', release)
  raw.on('timeout', () => {
    if (isStalled(socket)) cutOff('stalled')
  })
}
