/** A reverse proxy in front of Latchkey that hides extensions: plain MSC4162, or the bare specification. */
import { createServer } from 'node:http'
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import type { AnyJson } from '@latchkey/testing/matrix-session.ts'

export type Proxy = {
  readonly url: string
  /** Paths of the forwarded requests, after `/_matrix/client`. */
  readonly paths: string[]
  [Symbol.asyncDispose](): Promise<void>
}

export async function hidingProxy(
  target: string,
  level: 'msc4162' | 'bare',
  /** A path that the proxy serves the server below. */
  prefix = '',
): Promise<Proxy> {
  const paths: string[] = []
  const isHidden = (path: string): boolean =>
    path.includes('dev.latchkey') || (level === 'bare' && path.endsWith('/keys/reset'))
  const proxy = createServer((request, response) => {
    const chunks: Buffer[] = []
    request.on('data', (chunk: Buffer) => chunks.push(chunk))
    request.on('end', () => {
      void (async () => {
        const url = new URL((request.url ?? '').slice(prefix.length), target)
        paths.push(url.pathname.replace('/_matrix/client', ''))
        if (isHidden(url.pathname) || !(request.url ?? '').startsWith(prefix)) {
          response.writeHead(404, { 'content-type': 'application/json' })
          response.end('{"errcode":"M_UNRECOGNIZED","error":"Unrecognized request"}')
          return
        }
        const { authorization, 'content-type': contentType } = request.headers
        const answer = await fetch(url, {
          method: request.method ?? 'GET',
          headers: {
            ...(authorization !== undefined && { authorization }),
            ...(contentType !== undefined && { 'content-type': contentType }),
          },
          ...(chunks.length > 0 && { body: Buffer.concat(chunks) }),
        })
        const body = hide(await answer.json(), level)
        response.writeHead(answer.status, { 'content-type': 'application/json' })
        response.end(JSON.stringify(body))
      })()
    })
  })
  proxy.listen(0, '127.0.0.1')
  await once(proxy, 'listening')
  const { port } = proxy.address() as AddressInfo
  return {
    url: `http://127.0.0.1:${port}${prefix}`,
    paths,
    async [Symbol.asyncDispose]() {
      proxy.closeAllConnections()
      proxy.close()
      await once(proxy, 'close')
    },
  }
}

function hide(body: AnyJson, level: 'msc4162' | 'bare'): AnyJson {
  const shown = Object.fromEntries(Object.entries(body).filter(([name]) => !name.startsWith('dev.latchkey')))
  if (shown['unstable_features'] === undefined) return shown
  return { ...shown, unstable_features: level === 'msc4162' ? { 'org.matrix.msc4162': true } : {} }
}
