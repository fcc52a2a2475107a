/**
 * The control socket: administration commands to a running server, as HTTP over a Unix socket that only its owner can
 * open. Only a server with the embedded database has one, because no other process can use that database meanwhile.
 *
 *     POST /user%20add  x-latchkey-version: 0.1.0  {"name": "alice", ...}  ->  200 {...} | 4xx {"error": "..."}
 */
import { once } from 'node:events'
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { FastifyBaseLogger } from 'fastify'
import type { AdminDeps } from '../admin/command.ts'
import { runAdminCommand } from '../admin/commands.ts'
import { badJson, MatrixError, tooLarge } from '../matrix-error.ts'
import type { SecurityLog } from '../observe/security-log.ts'
import { version } from '../version.ts'
import { makePrivate, prepareSocket } from './socket-path.ts'

export const VERSION_HEADER = 'x-latchkey-version'

const MAX_BODY_BYTES = 64 * 1024
const REQUEST_TIMEOUT_MS = 10_000
const MAX_CONNECTIONS = 16
/** Commands that still run when the server stops are cut off after this time. */
const CLOSE_WITHIN_MS = 2_000
/** Others get no access between the creation of the socket and the change of its mode. */
const PRIVATE_UMASK = 0o177

export type ControlOptions = {
  readonly deps: AdminDeps
  readonly securityLog: SecurityLog
  readonly log: FastifyBaseLogger
}

export type ControlSocket = { readonly path: string; close(): Promise<void> }

/** Opens the socket of the data directory that this process has locked. */
export async function openControlSocket(directory: string, options: ControlOptions): Promise<ControlSocket> {
  const place = prepareSocket(directory)
  const server = createServer({ requestTimeout: REQUEST_TIMEOUT_MS }, (request, response) => {
    void answer(request, response, options)
  })
  server.maxConnections = MAX_CONNECTIONS
  await listenPrivately(server, place.path)
  return {
    path: place.path,
    async close() {
      const closed = once(server, 'close')
      server.close()
      server.closeIdleConnections()
      setTimeout(() => server.closeAllConnections(), CLOSE_WITHIN_MS).unref()
      await closed
      place.remove()
    },
  }
}

async function listenPrivately(server: Server, path: string): Promise<void> {
  const umask = process.umask(PRIVATE_UMASK)
  try {
    // Node creates the socket within this call.
    server.listen(path)
  } finally {
    process.umask(umask)
  }
  await once(server, 'listening')
  makePrivate(path)
}

async function answer(
  request: IncomingMessage,
  response: ServerResponse,
  options: ControlOptions,
): Promise<void> {
  let status = 200
  let body: unknown
  try {
    body = await run(request, options)
  } catch (error) {
    status = error instanceof MatrixError ? error.status : 500
    if (status === 500) options.log.error({ err: error }, 'unhandled error of an administration command')
    const message =
      error instanceof MatrixError ? error.message : 'Internal error. Details are in the server log.'
    body = { error: message }
  }
  response.writeHead(status, { 'content-type': 'application/json', connection: 'close' })
  response.end(JSON.stringify(body))
}

async function run(request: IncomingMessage, { deps, securityLog }: ControlOptions): Promise<unknown> {
  requireSameVersion(request.headers[VERSION_HEADER])
  const name = commandName(request.url ?? '')
  const { output, changed } = await runAdminCommand(deps, name, await readJson(request))
  if (changed !== undefined) securityLog.note('admin_command', {}, { command: name, target: changed })
  return output
}

/** @throws {MatrixError} for a path that is not valid percent-encoding */
function commandName(path: string): string {
  try {
    return decodeURIComponent(path.slice(1))
  } catch {
    throw badJson('The name of the command is not valid percent-encoding.')
  }
}

/** Commands of another version may mean something else. */
function requireSameVersion(theirs: string | string[] | undefined): void {
  const ours = version()
  if (theirs === ours) return
  throw badJson(
    `The running server is Latchkey ${ours}, this command is ${String(theirs)}. Use the command of the server's ` +
      'version, or restart the server with the installed one.',
  )
}

async function readJson(request: IncomingMessage): Promise<unknown> {
  const chunks: Buffer[] = []
  let bytes = 0
  for await (const chunk of request as AsyncIterable<Buffer>) {
    bytes += chunk.byteLength
    if (bytes > MAX_BODY_BYTES) throw tooLarge('The input of the command is too large.')
    chunks.push(chunk)
  }
  try {
    return JSON.parse(Buffer.concat(chunks).toString('utf8'))
  } catch {
    throw badJson('The input of the command is not JSON.')
  }
}
