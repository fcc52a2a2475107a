/**
 * `npm run build`: writes what is published of the libraries, one folder each: JavaScript, declarations, package.json.
 * The sources are TypeScript that Node runs as it stands in a checkout; from `node_modules` it does not run .ts.
 */
import { execFile } from 'node:child_process'
import { cpSync, existsSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'

const ROOT = fileURLToPath(new URL('..', import.meta.url))
/** In the order of their dependencies. */
const PACKAGES = ['protocol', 'client'] as const
const NODE = '>=24.15'
/** The compiler rewrites them in JavaScript only; in declarations not every tool resolves them. */
const RELATIVE_TS_IMPORT = /((?:from|import\() ?['"]\.{1,2}\/[^'"]*)\.ts(['"])/g

/** The part of a package.json that matters here. */
type Manifest = { readonly exports: Readonly<Record<string, string>> } & Readonly<Record<string, unknown>>

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const directory = join(ROOT, 'dist')
  await buildPackages(directory)
  process.stdout.write(`${PACKAGES.map((name) => join(directory, name)).join('\n')}\n`)
}

/** Builds every library into a folder of its own under `directory`, in place of what is there. */
export async function buildPackages(directory: string): Promise<void> {
  for (const name of PACKAGES) {
    const source = join(ROOT, 'packages', name)
    const target = join(directory, name)
    rmSync(target, { recursive: true, force: true })
    mkdirSync(target, { recursive: true })
    await compile(source, target, directory)
    writeJson(join(target, 'package.json'), published(readManifest(source)))
    cpSync(join(ROOT, 'LICENSE'), join(target, 'LICENSE'))
    const readme = join(source, 'README.md')
    if (existsSync(readme)) cpSync(readme, join(target, 'README.md'))
  }
}

/** Compiles `source`/src into `target`, against the packages that are built already. */
async function compile(source: string, target: string, built: string): Promise<void> {
  const config = join(target, 'tsconfig.json')
  const paths = PACKAGES.filter((name) => existsSync(join(built, name, 'index.d.ts'))).map((name) => [
    `@latchkey/${name}`,
    [join(built, name, 'index.d.ts')],
  ])
  writeJson(config, {
    extends: join(ROOT, 'tsconfig.json'),
    compilerOptions: {
      noEmit: false,
      declaration: true,
      // What is wrong with the sources is found by `npm run check`.
      noCheck: true,
      rewriteRelativeImportExtensions: true,
      rootDir: join(source, 'src'),
      outDir: target,
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

/** The package.json of a package as it is published: what it exports is JavaScript with declarations. */
function published({ exports, ...manifest }: Manifest): Manifest & { exports: unknown } {
  const entries = Object.entries(exports).map(([path, file]) => {
    const base = file.replace('./src/', './').replace(/\.ts$/, '')
    return [path, { types: `${base}.d.ts`, default: `${base}.js` }]
  })
  return {
    ...manifest,
    sideEffects: false,
    engines: { node: NODE },
    exports: Object.fromEntries(entries),
    files: ['**/*.js', '**/*.d.ts'],
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
