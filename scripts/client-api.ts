/**
 * The API page of `@latchkey/client`: every public declaration with its TSDoc, taken from the built .d.ts files. A test
 * compares it with docs/reference/client-api.md; `npm run api:update` writes that page.
 */
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { buildPackages } from './build-packages.ts'

export const API_PAGE = fileURLToPath(new URL('../docs/reference/client-api.md', import.meta.url))

const ENTRY_POINTS = [
  { specifier: '@latchkey/client', file: 'index.d.ts' },
  { specifier: '@latchkey/client/libolm', file: 'libolm.d.ts' },
  { specifier: '@latchkey/client/node', file: 'node.d.ts' },
] as const

const INTRODUCTION = `# API of @latchkey/client

The public declarations of the package, by entry point. Generated from the sources by \`npm run api:update\`; a test fails
when this page is out of date. Guides and the meaning of options are in the
[README](../../packages/client/README.md), events in [client-events.md](client-events.md).
`

const EXPORT_LIST = /^export (?:type )?\{([^}]*)\} from '([^']+)';/gm
const IMPORT_LIST = /^import (?:type )?\{([^}]*)\} from '([^']+)';/gm
/** The comments before a declaration: a file's header may precede its own. */
const COMMENTS = /^(?:\/\*\*[\s\S]*?\*\/\n)*/
const DECLARATION =
  /^(?:export )?(?:declare )?(?:abstract )?(?:class|const|function|interface|type) ([A-Za-z_]\w*)/
const INNER_COMMENT = /\/\*\*[\s\S]*?\*\//g
/** Members that are not part of the API. */
const PRIVATE_MEMBER = /^ {4}(?:#private|private [^\n]*);\n/gm

/** One top-level declaration of a .d.ts file. */
export type Declaration = {
  readonly name: string
  /** The declaration without its TSDoc. */
  readonly code: string
  /** The TSDoc comment; empty when there is none. */
  readonly comment: string
}

/** The exported declarations of one entry point. */
export type EntryPoint = { readonly specifier: string; readonly exported: readonly Declaration[] }

/** The public API: the exports of each entry point, and the unexported types that they refer to. */
export type Api = {
  readonly entryPoints: readonly EntryPoint[]
  readonly referenced: readonly Declaration[]
}

if (process.argv[1] === fileURLToPath(import.meta.url)) writeFileSync(API_PAGE, apiPage(await readApi()))

/** Builds the package and reads its public declarations. */
export async function readApi(): Promise<Api> {
  const built = mkdtempSync(join(tmpdir(), 'latchkey-api-'))
  try {
    await buildPackages(built)
    return readDeclarations(join(built, 'client'))
  } finally {
    rmSync(built, { recursive: true, force: true })
  }
}

/** The Markdown page of an API. */
export function apiPage({ entryPoints, referenced }: Api): string {
  const sections = entryPoints.map(
    ({ specifier, exported }) => `## ${specifier}\n\n${exported.map(sectionOf).join('\n')}`,
  )
  const rest = `## Types that these declarations refer to\n\n${blockOf(referenced)}`
  return [INTRODUCTION, ...sections, rest].join('\n')
}

function sectionOf(declaration: Declaration): string {
  return `### ${declaration.name}\n\n${blockOf([declaration])}`
}

function blockOf(declarations: readonly Declaration[]): string {
  const texts = declarations.map(({ comment, code }) => (comment === '' ? code : `${comment}\n${code}`))
  return `\`\`\`ts\n${texts.join('\n\n')}\n\`\`\`\n`
}

/** A module of the built package: its declarations, and where its imports come from. */
type Module = {
  readonly declarations: ReadonlyMap<string, Declaration>
  readonly imports: ReadonlyMap<string, string>
}

function readDeclarations(root: string): Api {
  const modules = new Map<string, Module>()
  const moduleAt = (path: string): Module => {
    const known = modules.get(path) ?? readModule(root, path)
    modules.set(path, known)
    return known
  }
  const exported = new Map<Declaration, string>()
  const entryPoints = ENTRY_POINTS.map(({ specifier, file }) => {
    const own = exportsOf(readFileSync(join(root, file), 'utf8'), file).map(([name, path]) => {
      const declaration = moduleAt(path).declarations.get(name)
      if (declaration === undefined) throw new Error(`${path} does not declare ${name}`)
      exported.set(declaration, path)
      return declaration
    })
    return { specifier, exported: own }
  })
  const referenced = new Map<Declaration, string>()
  const addReferences = (declaration: Declaration, path: string): void => {
    for (const [found, home] of referencesOf(declaration, path, moduleAt)) {
      if (!exported.has(found)) referenced.set(found, home)
    }
  }
  for (const [declaration, path] of exported) addReferences(declaration, path)
  // References of references are visited too: a Map's iteration includes what is added during it.
  for (const [declaration, path] of referenced) addReferences(declaration, path)
  return { entryPoints, referenced: [...referenced.keys()] }
}

/** The names that an entry point exports, and the modules that declare them. */
function exportsOf(text: string, file: string): [name: string, path: string][] {
  return [...text.matchAll(EXPORT_LIST)].flatMap(([, names = '', from = '']) =>
    namesIn(names).map((name): [string, string] => [name, resolve(file, from)]),
  )
}

/** The declarations of this package that a declaration names, and their modules. */
function referencesOf(
  { code }: Declaration,
  path: string,
  moduleAt: (path: string) => Module,
): [Declaration, string][] {
  const { declarations, imports } = moduleAt(path)
  return [...code.replaceAll(INNER_COMMENT, '').matchAll(/\b[A-Za-z_]\w*\b/g)].flatMap(
    ([word]): [Declaration, string][] => {
      const from = imports.get(word)
      const home = from?.startsWith('.') === true ? resolve(path, from) : path
      const found = home === path ? declarations.get(word) : moduleAt(home).declarations.get(word)
      return found === undefined ? [] : [[found, home]]
    },
  )
}

function readModule(root: string, path: string): Module {
  const text = readFileSync(join(root, path), 'utf8')
  const declarations = new Map<string, Declaration>()
  for (const statement of topLevelStatements(text)) {
    const [comments = ''] = COMMENTS.exec(statement) ?? []
    const comment = comments.slice(Math.max(0, comments.lastIndexOf('/**')))
    const code = statement.slice(comments.length).trimEnd().replaceAll(PRIVATE_MEMBER, '')
    const [, name] = DECLARATION.exec(code) ?? []
    if (name !== undefined) declarations.set(name, { name, code, comment: comment.trimEnd() })
  }
  const imports = [...text.matchAll(IMPORT_LIST)].flatMap(([, names = '', from = '']) =>
    namesIn(names).map((name) => [name, from] as const),
  )
  return { declarations, imports: new Map(imports) }
}

/** The statements of a .d.ts file, each with the comments before it. */
function topLevelStatements(text: string): string[] {
  const statements: string[] = []
  let current = ''
  let depth = 0
  for (const line of text.split('\n')) {
    current += `${line}\n`
    if (/^\s*(?:\/?\*|$)/.test(line)) continue
    depth += line.split(/[{([]/).length - line.split(/[})\]]/).length
    if (depth > 0 || !/[;}]$/.test(line)) continue
    statements.push(current)
    current = ''
  }
  return statements
}

function namesIn(list: string): string[] {
  return list
    .split(',')
    .map((name) => name.trim().replace(/^type /, ''))
    .filter((name) => name !== '')
}

function resolve(from: string, specifier: string): string {
  return join(dirname(from), specifier.replace(/\.js$/, '.d.ts'))
}
