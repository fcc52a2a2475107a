/**
 * The three packages as a user gets them: packed, installed from the tarballs by one `npm install` into an empty
 * folder, and run there, with the project's Node and, for the libraries, with an older one. Needs the package
 * registry.
 */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import {
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, join, sep } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { READY, RunningProcess } from '@latchkey/testing/run-latchkey.ts'
import { buildPackages, PACKAGES } from '../../scripts/build-packages.ts'

const ROOT = realpathSync(fileURLToPath(new URL('../..', import.meta.url)))
const OLDEST_MAJOR = 20
const directory = realpathSync(mkdtempSync(join(tmpdir(), 'latchkey-pack-')))
const tarballs = join(directory, 'tarballs')
const app = join(directory, 'app')
/** PATH of a user: without the repository's programs. `environment` has this version of Node first. */
const path = withoutRepository(process.env['PATH'] ?? '')
const environment = { ...withoutNpm(process.env), PATH: `${join(directory, 'bin')}${delimiter}${path}` }

before(async () => {
  for (const folder of ['bin', 'tarballs', 'app']) mkdirSync(join(directory, folder))
  symlinkSync(process.execPath, join(directory, 'bin', 'node'))
  await buildPackages(join(directory, 'dist'))
  for (const name of PACKAGES) {
    await run('npm', ['pack', '--pack-destination', tarballs], join(directory, 'dist', name))
  }
  const files = readdirSync(tarballs).map((file) => join(tarballs, file))
  assert.equal(files.length, PACKAGES.length)
  await run('npm', ['install', '--no-audit', '--no-fund', ...files], app)
})
after(() => rmSync(directory, { recursive: true, force: true }))

test('nothing that was installed is linked to the repository', () => {
  for (const name of ['latchkey', '@latchkey/client', '@latchkey/protocol']) {
    const installed = join(app, 'node_modules', name)
    assert.equal(realpathSync(installed), installed)
  }
})

for (const which of ['this', 'an older'] as const) {
  test(`the libraries work with ${which} Node`, async (t) => {
    const node = which === 'this' ? process.execPath : await olderNode()
    if (node === undefined) {
      t.skip(`no Node older than this one, and at least ${OLDEST_MAJOR}, in PATH`)
      return
    }
    writeFileSync(join(app, 'use.mjs'), USE)
    const { stdout, stderr } = await run(node, ['use.mjs'], app)
    assert.deepEqual(JSON.parse(stdout), {
      inside: true,
      json: '{"a":[true,null],"b":1}',
      passed: { status: 200, body: '{"versions":[]}' },
      guarded: true,
      failure: 'StaleStoreError',
    })
    assert.equal(stderr, '')
  })
}

test('npx latchkey prints its help, and its version is that of the package', async () => {
  const help = await run('npx', ['latchkey', '--help'], app)
  assert.match(help.stdout, /latchkey serve/)
  const { stdout } = await run('npx', ['latchkey', '--version'], app)
  assert.equal(stdout, '0.1.0\n')
})

test('npx latchkey serve serves, keeps its database in the folder, and ends on SIGTERM', async () => {
  await using server = new RunningProcess('npx', ['latchkey', 'serve', '--port', '0'], {
    cwd: app,
    environment,
  })
  const [, url = ''] = await server.printed(READY)
  const response = await fetch(`${url}/_matrix/client/versions`)
  assert.equal(response.status, 200)
  assert.ok(Array.isArray(((await response.json()) as { versions: unknown }).versions))
  // To the whole process group, as a terminal or a service manager does: npx does not pass the signal to the server.
  process.kill(-(server.child.pid ?? 0), 'SIGTERM')
  const { stderr } = await server.ended
  assert.doesNotMatch(stderr, /cannot start|Error/)
  await assert.rejects(fetch(`${url}/_matrix/client/versions`))
  assert.ok(existsSync(join(app, 'latchkey-data', 'latchkey.db')))
})

test('on an older Node the command names the remedy', async (t) => {
  const node = await olderNode()
  if (node === undefined) {
    t.skip(`no Node older than this one, and at least ${OLDEST_MAJOR}, in PATH`)
    return
  }
  const bin = join(app, 'node_modules', '.bin', 'latchkey')
  const { code, stdout, stderr } = await new RunningProcess(node, [bin, 'serve'], {
    cwd: app,
    environment,
  }).ended
  assert.deepEqual({ code, stdout }, { code: 1, stdout: '' })
  assert.match(stderr, /^Latchkey needs Node 24\.15 or newer; this is Node \d+\.\d+\.\d+\. .*nodejs\.org/)
})

/** A program of a user that has only the installed packages. */
const USE = `
import { canonicalJson } from '@latchkey/protocol'
import { guardFetch, memoryStore, StaleStoreError } from '@latchkey/client'
import * as libolm from '@latchkey/client/libolm'

const here = new URL('.', import.meta.url).href
const entries = ['@latchkey/protocol', '@latchkey/client', '@latchkey/client/libolm']
const inside = entries.every((entry) => import.meta.resolve(entry).startsWith(here + 'node_modules/'))
const server = async () => new Response('{"versions":[]}', { headers: { 'content-type': 'application/json' } })
const guarded = guardFetch(server, { store: memoryStore() })
const response = await guarded('http://server.example/_matrix/client/versions')
const passed = { status: response.status, body: await response.text() }
const store = memoryStore()
await store.write(0, new Map([['a', '1']]))
const failure = await store.write(0, new Map()).catch((error) => error instanceof StaleStoreError && error.name)
console.log(JSON.stringify({
  inside,
  json: canonicalJson({ b: 1, a: [true, null] }),
  passed,
  guarded: typeof guarded.explain === 'function' && typeof libolm.libolmAccounts === 'function',
  failure,
}))
`

async function run(
  command: string,
  args: readonly string[],
  cwd: string,
): Promise<{ stdout: string; stderr: string }> {
  return promisify(execFile)(command, args, { cwd, env: environment })
}

/** The first Node in PATH, if the libraries support it and the server does not. */
async function olderNode(): Promise<string | undefined> {
  for (const folder of path.split(delimiter)) {
    const node = join(folder, 'node')
    if (!existsSync(node)) continue
    const major = Number(/^v(\d+)/.exec((await run(node, ['--version'], directory)).stdout)?.[1])
    if (major >= OLDEST_MAJOR && major < Number(process.versions.node.split('.')[0])) return node
  }
  return undefined
}

function withoutRepository(searched: string): string {
  return searched
    .split(delimiter)
    .filter((folder) => folder !== '' && !`${folder}${sep}`.includes(`${sep}node_modules${sep}`))
    .filter((folder) => !`${folder}${sep}`.startsWith(`${ROOT}${sep}`))
    .join(delimiter)
}

/** Without the variables of `npm run`, which direct a nested npm to the repository. */
function withoutNpm(variables: NodeJS.ProcessEnv): NodeJS.ProcessEnv {
  const isOurs = (name: string): boolean => /^(npm_|INIT_CWD$|NODE$|NODE_OPTIONS$|LATCHKEY_)/.test(name)
  return Object.fromEntries(Object.entries(variables).filter(([name]) => !isOurs(name)))
}
