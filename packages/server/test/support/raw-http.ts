/** HTTP written by hand to a socket, for requests that no well-behaved client sends. */
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import type { TestServer } from '@latchkey/testing/test-server.ts'

export type RawAnswer = { readonly status: number; readonly head: string; readonly text: string }

/** Opens a connection. A reset by the server is left to the test and is never an unhandled error. */
export async function openSocket(server: TestServer): Promise<Socket> {
  const { hostname, port } = new URL(server.url)
  const socket = connect(Number(port), hostname)
  socket.on('error', () => {})
  await once(socket, 'connect')
  return socket
}

/** Reads until the connection ends. Status 0 when it ended without an answer. */
export async function readToEnd(socket: Socket): Promise<RawAnswer> {
  const chunks: Buffer[] = []
  socket.on('data', (chunk: Buffer) => chunks.push(chunk))
  // Not events.once, which rejects on a reset: here a reset is an end like any other.
  if (!socket.closed) await new Promise((resolve) => socket.once('close', resolve))
  return parseAnswer(Buffer.concat(chunks).toString())
}

/** Sends the bytes and reads the answer to the end; the request should include `Connection: close`. */
export async function sendRaw(server: TestServer, bytes: string | Uint8Array): Promise<RawAnswer> {
  const socket = await openSocket(server)
  const answer = readToEnd(socket)
  socket.write(bytes)
  return answer
}

function parseAnswer(text: string): RawAnswer {
  const [head = '', ...rest] = text.split('\r\n\r\n')
  const status = Number(/^HTTP\/1\.1 (\d{3})/.exec(head)?.[1] ?? 0)
  return { status, head: head.toLowerCase(), text: rest.join('\r\n\r\n') }
}
