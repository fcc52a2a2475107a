/** Sends administration commands to the server that has a data directory open (control-server.ts). */
import { once } from 'node:events'
import { type IncomingMessage, request } from 'node:http'
import { version } from '../version.ts'
import { VERSION_HEADER } from './control-server.ts'
import { findSocket } from './socket-path.ts'

/** The server refused a command; the message is meant for the operator. */
export class CommandRefused extends Error {
  override readonly name = 'CommandRefused'
}

/** A command may hash a password and wait for a busy database. */
const TIMEOUT_MS = 60_000

/**
 * Resolves with the answer to a command; undefined if no server has the directory open.
 *
 * @throws {CommandRefused}
 */
export async function callServer(
  directory: string,
  command: string,
  input: object,
): Promise<{ readonly output: unknown } | undefined> {
  const call = request({
    socketPath: findSocket(directory),
    path: `/${encodeURIComponent(command)}`,
    method: 'POST',
    headers: { [VERSION_HEADER]: version(), 'content-type': 'application/json' },
    signal: AbortSignal.timeout(TIMEOUT_MS),
  })
  call.end(JSON.stringify(input))
  try {
    const [response] = (await once(call, 'response')) as [IncomingMessage]
    const body: unknown = JSON.parse(await textOf(response))
    if (response.statusCode === 200) return { output: body }
    throw new CommandRefused(String((body as { error?: unknown }).error))
  } catch (error) {
    if (isAbsent(error)) return undefined
    throw error
  }
}

/** No socket, or one that a killed process left. */
function isAbsent(error: unknown): boolean {
  return error instanceof Error && 'code' in error && ['ENOENT', 'ECONNREFUSED'].includes(String(error.code))
}

async function textOf(response: IncomingMessage): Promise<string> {
  const chunks: Buffer[] = []
  for await (const chunk of response as AsyncIterable<Buffer>) chunks.push(chunk)
  return Buffer.concat(chunks).toString('utf8')
}
