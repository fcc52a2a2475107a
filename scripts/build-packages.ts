/**
 * `npm run build`: writes the packages as they are published, one folder each, ready for `npm pack`: JavaScript,
 * package.json, README and LICENSE; declarations for the two libraries.
 * The sources are TypeScript, which Node runs in a checkout but not inside `node_modules`.
 */
import { execFile } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
/** In the order of their dependencies. */
export const PACKAGES = ['protocol', 'client', 'server'] as const
type PackageName = (typeof PACKAGES)[number]
/** Relative `.ts` imports in declarations: the compiler does not rewrite them, and not every tool resolves them. */
const RELATIVE_TS_IMPORT = /((?:from|import\() ?['"]\.{1,2}\/[^'"]*)\.ts(['"])/g
const LIBRARY_FILES = ['**/*.js', '**/*.d.ts']
/** bin/latchkey.mjs starts what is in `lib`, with `src` in a checkout. */
const SERVER_FILES = ['bin/latchkey.mjs', 'lib/**/*.js']

/** The fields of a package.json that the build reads. */
type Manifest = { readonly exports?: Readonly<Record<string, string>> } & Readonly<Record<string, unknown>>

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const directory = join(ROOT, 'dist')
  await buildPackages(directory)
  process.stdout.write(`${PACKAGES.map((name) => join(directory, name)).join('\n')}\n`)
}

/** Builds every package into a folder of its own under `directory`, replacing the content of the folder. */
export async function buildPackages(directory: string): Promise<void> {
  for (const name of PACKAGES) {
    const source = join(ROOT, 'packages', name)
    const target = join(directory, name)
    rmSync(target, { recursive: true, force: true })
    mkdirSync(target, { recursive: true })
    await compile(name, target, directory)
    if (name === 'server') cpSync(join(source, 'bin'), join(target, 'bin'), { recursive: true })
    writeJson(join(target, 'package.json'), published(name, readManifest(source)))
    cpSync(join(ROOT, 'LICENSE'), join(target, 'LICENSE'))
    cpSync(join(source, 'README.md'), join(target, 'README.md'))
  }
}

/** Compiles a package's `src`, against the packages that are built already. */
async function compile(name: PackageName, target: string, built: string): Promise<void> {
  const source = join(ROOT, 'packages', name)
  const config = join(target, 'tsconfig.json')
  const isLibrary = name !== 'server'
  const paths = PACKAGES.filter((other) => existsSync(join(built, other, 'index.d.ts'))).map((other) => [
    `@latchkey/${other}`,
    [join(built, other, 'index.d.ts')],
  ])
  writeJson(config, {
    extends: join(ROOT, 'tsconfig.json'),
    compilerOptions: {
      noEmit: false,
      declaration: isLibrary,
      // Errors in the sources are found by `npm run check`.
      noCheck: true,
      rewriteRelativeImportExtensions: true,
      rootDir: join(source, 'src'),
      outDir: isLibrary ? target : join(target, 'lib'),
      typeRoots: [join(ROOT, 'node_modules', '@types')],
      paths: Object.fromEntries(paths),
    },
    include: [join(source, 'src')],
    exclude: [join(source, 'src/**/*.test.ts')],
  })
  const compiler = join(ROOT, 'node_modules', 'typescript', 'bin', 'tsc')
  try {
    await promisify(execFile)(process.execPath, [compiler, '-p', config])
  } catch (error) {
    const output = error instanceof Error && 'stdout' in error ? String(error.stdout) : ''
    throw new Error(`${source} does not compile:\n${output}`, { cause: error })
  }
  rmSync(config)
  for (const file of filesUnder(target).filter((path) => path.endsWith('.d.ts'))) {
    const declarations = readFileSync(join(target, file), 'utf8')
    writeFileSync(join(target, file), declarations.replaceAll(RELATIVE_TS_IMPORT, '$1.js$2'))
  }
}

/** The package.json of a package as it is published: it exports JavaScript, and has no scripts of the checkout. */
function published(name: PackageName, manifest: Manifest): unknown {
  const { exports = {}, private: _private, scripts: _scripts, ...rest } = manifest
  const entries = Object.entries(exports).map(([path, file]) => {
    if (!file.endsWith('.ts')) return [path, file]
    const base = file.replace('./src/', './').replace(/\.ts$/, '')
    return [path, { types: `${base}.d.ts`, default: `${base}.js` }]
  })
  return {
    ...rest,
    exports: Object.fromEntries(entries),
    files: name === 'server' ? SERVER_FILES : LIBRARY_FILES,
  }
}

function readManifest(source: string): Manifest {
  return JSON.parse(readFileSync(join(source, 'package.json'), 'utf8')) as Manifest
}

function writeJson(path: string, value: unknown): void {
  writeFileSync(path, `${JSON.stringify(value, undefined, 2)}\n`)
}

/** Every file under a directory, relative to it. */
export function filesUnder(directory: string): string[] {
  return readdirSync(directory, { recursive: true, withFileTypes: true })
    .filter((entry) => entry.isFile())
    .map((entry) => join(entry.parentPath, entry.name).slice(directory.length + 1))
    .sort()
}
