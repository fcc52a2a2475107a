/**
 * The packages as they are published. The libraries are installed by copying, and used from plain JavaScript and from
 * TypeScript without any of the sources. Installation from tarballs: pack/install.test.ts.
 */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { after, before, test } from 'node:test'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { buildPackages, filesUnder, PACKAGES } from '../scripts/build-packages.ts'

/** Built files that may import Node's modules. */
const NEEDS_NODE = /^(node|store\/sqlite-file)\.js$|^store\/sqlite-file-\w+\.(js|d\.ts)$/

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const directory = mkdtempSync(join(tmpdir(), 'latchkey-packages-'))
const built = join(directory, 'dist')
const app = join(directory, 'app')
const run = promisify(execFile)

before(async () => {
  await buildPackages(built)
  mkdirSync(join(app, 'node_modules'), { recursive: true })
  cpSync(built, join(app, 'node_modules', '@latchkey'), { recursive: true })
  writeFileSync(join(app, 'package.json'), '{ "type": "module" }')
})
after(() => rmSync(directory, { recursive: true, force: true }))

test('the packages contain JavaScript and declarations, but no sources and no tests', async () => {
  for (const name of PACKAGES) {
    const folder = join(built, name)
    const { stdout } = await run('npm', ['pack', '--dry-run', '--json'], { cwd: folder })
    const [{ files }] = JSON.parse(stdout) as [{ files: { path: string }[] }]
    const paths = files.map(({ path }) => path).sort()
    assert.deepEqual(paths, filesUnder(folder))
    assert.deepEqual(
      paths.filter(
        (path) =>
          !/^(LICENSE|README\.md|package\.json|bin\/latchkey\.mjs)$|\.d\.ts$|\.js$/.test(path) ||
          path.includes('.test.'),
      ),
      [],
    )
    for (const path of ['LICENSE', 'README.md', 'package.json'])
      assert.ok(paths.includes(path), `${name}: ${path}`)
  }
})

test('the sources themselves cannot be packed', async () => {
  for (const name of PACKAGES) {
    const packed = run('npm', ['pack', '--dry-run'], { cwd: join(ROOT, 'packages', name) })
    await assert.rejects(packed, new RegExp(`"npm pack" in dist/${name}`))
  }
})

test('every import of a built file exists or is a declared dependency', () => {
  for (const name of PACKAGES) {
    const folder = join(built, name)
    const manifest = JSON.parse(readFileSync(join(folder, 'package.json'), 'utf8')) as Record<string, object>
    const allowed = Object.keys({ ...manifest['dependencies'], ...manifest['peerDependencies'] })
    for (const file of filesUnder(folder).filter((path) => /\.(js|d\.ts)$/.test(path))) {
      for (const specifier of importsOf(readFileSync(join(folder, file), 'utf8'))) {
        if (specifier.startsWith('.')) {
          const target = join(folder, dirname(file), specifier)
          const there = file.endsWith('.d.ts') ? target.replace(/\.js$/, '.d.ts') : target
          assert.ok(target.endsWith('.js') && existsSync(there), `${name}/${file}: ${specifier}`)
        } else if (specifier.startsWith('node:')) {
          // No entry point refers to the declarations of the file store's parts.
          const mayUseNode = name === 'server' || NEEDS_NODE.test(file)
          assert.ok(mayUseNode, `${name}/${file}: ${specifier}`)
        } else assert.ok(allowed.includes(packageOf(specifier)), `${name}/${file}: ${specifier}`)
      }
    }
  }
})

/** `typebox` in `typebox/value`, `@latchkey/client` in `@latchkey/client/node`. */
function packageOf(specifier: string): string {
  return specifier
    .split('/')
    .slice(0, specifier.startsWith('@') ? 2 : 1)
    .join('/')
}

test('plain Node imports every entry point and uses a store', async () => {
  writeFileSync(
    join(app, 'use.js'),
    `import * as client from '@latchkey/client'
     import * as libolm from '@latchkey/client/libolm'
     import { fileStore } from '@latchkey/client/node'
     const store = fileStore('device.latchkey')
     await store.write(0, new Map([['a', '1']]))
     try {
       await store.write(0, new Map())
     } catch (error) {
       console.log(error instanceof client.StaleStoreError, error.message)
     }
     await store.close()
     console.log(Object.keys(libolm).join())`,
  )
  const { stdout, stderr } = await run(process.execPath, ['use.js'], { cwd: app })
  assert.equal(
    stdout,
    'true the store is at generation 1, the write was decided on generation 0\nlibolmAccounts\n',
  )
  assert.doesNotMatch(stderr, /error/i)
})

test('the declarations are self-contained, in Node and for a bundler, without the types of Node', async () => {
  writeFileSync(
    join(app, 'use.ts'),
    `import { indexedDbStore, memoryStore, type ClientEvent, type Store, StoreError } from '@latchkey/client'
     import { fileStore } from '@latchkey/client/node'
     export const stores: Store[] = [memoryStore(), indexedDbStore('a', { lockTimeoutMs: 1 }), fileStore('b')]
     export const reasonOf = (error: StoreError): 'unreadable' | 'corrupted' | 'foreign' => error.reason
     export const severityOf = (event: ClientEvent): string =>
       event.type === 'two_writers' ? String(event.heals) : event.severity
     // @ts-expect-error: a store needs a path
     export const wrong: Store = fileStore()`,
  )
  const compiler = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc')
  const options = [
    '--strict',
    '--noEmit',
    '--target',
    'es2024',
    '--lib',
    'es2024,dom',
    '--types',
    '',
    'use.ts',
  ]
  for (const resolution of [
    ['--module', 'nodenext'],
    ['--module', 'esnext', '--moduleResolution', 'bundler'],
  ]) {
    await typeChecks([compiler, ...options, ...resolution])
  }
})

test('the key manager for libolm is typed against the peer dependency', async () => {
  mkdirSync(join(app, 'node_modules', '@matrix-org'), { recursive: true })
  symlinkSync(join(ROOT, 'node_modules/@matrix-org/olm'), join(app, 'node_modules/@matrix-org/olm'))
  writeFileSync(
    join(app, 'olm.ts'),
    `import Olm from '@matrix-org/olm'
     import { libolmAccounts } from '@latchkey/client/libolm'
     export const accounts = libolmAccounts(Olm, 'secret')`,
  )
  const compiler = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc')
  const options = [
    '--strict',
    '--noEmit',
    '--target',
    'es2024',
    '--lib',
    'es2024,dom',
    '--types',
    '',
    'olm.ts',
  ]
  await typeChecks([compiler, ...options, '--module', 'esnext', '--moduleResolution', 'bundler'])
})

async function typeChecks(command: readonly string[]): Promise<void> {
  try {
    await run(process.execPath, command, { cwd: app })
  } catch (error) {
    assert.fail(String((error as { stdout?: string }).stdout))
  }
}

/** Modules that a built file imports, dynamic imports included. Comments, and the examples in them, do not count. */
function importsOf(code: string): string[] {
  const bare = code.replaceAll(/\/\*[\s\S]*?\*\//g, '')
  return [...bare.matchAll(/(?:\bfrom|\bimport\(|^import) ?['"]([^'"\s$]+)['"]/gm)].map(
    ([, specifier = '']) => specifier,
  )
}
