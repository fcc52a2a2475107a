/**
 * A web app as a user of the library would build it: the packages are built as for npm and installed, and Vite bundles
 * a page with them. Served from loopback, which browsers treat as a secure context.
 */
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:http'
import { once } from 'node:events'
import { tmpdir } from 'node:os'
import { extname, join, normalize } from 'node:path'
import { fileURLToPath } from 'node:url'
import { build, type Plugin } from 'vite'
import { buildPackages } from '../../../scripts/build-packages.ts'

const PAGES = fileURLToPath(new URL('../pages', import.meta.url))
const TYPES: Readonly<Record<string, string>> = {
  '.html': 'text/html; charset=utf-8',
  '.js': 'text/javascript',
  '.wasm': 'application/wasm',
}

export type Site = { readonly url: string; [Symbol.asyncDispose](): Promise<void> }

/** Bundles pages/NAME.ts and serves it as the site's only page. */
export async function serveSite(page: string): Promise<Site> {
  const directory = mkdtempSync(join(tmpdir(), 'latchkey-site-'))
  const installed = join(directory, 'node_modules', '@latchkey')
  mkdirSync(installed, { recursive: true })
  await buildPackages(installed)
  const output = join(directory, 'dist')
  await build({
    configFile: false,
    logLevel: 'error',
    root: directory,
    plugins: [installedPackages(directory)],
    build: {
      outDir: output,
      target: 'esnext',
      minify: false,
      modulePreload: false,
      chunkSizeWarningLimit: Number.POSITIVE_INFINITY,
      rolldownOptions: { input: join(PAGES, `${page}.ts`), output: { entryFileNames: 'page.js' } },
    },
  })
  writeFileSync(
    join(output, 'index.html'),
    '<!doctype html><title>Latchkey</title><link rel="icon" href="data:,"><script type="module" src="/page.js"></script>',
  )
  const server = await serve(output)
  return {
    url: server.url,
    async [Symbol.asyncDispose]() {
      await server.close()
      rmSync(directory, { recursive: true, force: true })
    },
  }
}

/** Resolves `@latchkey/...` to the installed packages instead of the checkout's sources. */
function installedPackages(directory: string): Plugin {
  return {
    name: 'installed-packages',
    enforce: 'pre',
    resolveId(source) {
      if (!source.startsWith('@latchkey/')) return null
      return this.resolve(source, join(directory, 'app.js'), { skipSelf: true })
    },
  }
}

async function serve(directory: string): Promise<{ url: string; close(): Promise<void> }> {
  const server = createServer((request, response) => {
    const { pathname } = new URL(request.url ?? '/', 'http://localhost')
    const file = join(directory, normalize(pathname === '/' ? '/index.html' : pathname))
    try {
      const content = readFileSync(file)
      response
        .writeHead(200, { 'content-type': TYPES[extname(file)] ?? 'application/octet-stream' })
        .end(content)
    } catch {
      response.writeHead(404).end()
    }
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const address = server.address()
  if (address === null || typeof address === 'string') throw new Error('the site has no port')
  return {
    url: `http://127.0.0.1:${address.port}/`,
    async close() {
      server.closeAllConnections()
      server.close()
      await once(server, 'close')
    },
  }
}
