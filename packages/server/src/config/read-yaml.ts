/**
 * Reads the configuration file: nested YAML keys become dotted paths with text and line. Values stay text, because
 * `1.10` may be a server name instead of a number; kinds.ts parses them.
 */
import { isMap, isScalar, LineCounter, type Node, parseDocument } from 'yaml'
import { quoted } from '../matrix-error.ts'
import { didYouMean } from './did-you-mean.ts'

export type Entry = { readonly text: string; readonly line: number }

export type YamlFile = { readonly entries: ReadonlyMap<string, Entry>; readonly problems: readonly string[] }

/**
 * @param file name used in problems, `latchkey.yaml:12 ...`
 * @param paths dotted paths of all known keys
 */
export function readYaml(source: string, file: string, paths: readonly string[]): YamlFile {
  const lines = new LineCounter()
  const document = parseDocument(source, { lineCounter: lines, prettyErrors: false })
  if (document.errors.length > 0) {
    const problems = document.errors.map(
      ({ pos, message }) => `${file}:${lines.linePos(pos[0]).line} is not valid YAML: ${message}`,
    )
    return { entries: new Map(), problems }
  }
  const known = new Set(paths)
  const sections = new Set(
    paths.filter((path) => path.includes('.')).map((path) => path.slice(0, path.lastIndexOf('.'))),
  )
  for (const section of sections)
    if (section.includes('.')) sections.add(section.slice(0, section.indexOf('.')))
  const entries = new Map<string, Entry>()
  const problems: string[] = []
  const at = (node: unknown): string => {
    const offset = (node as Node | null)?.range?.[0] ?? 0
    return `${file}:${lines.linePos(offset).line}`
  }

  const visit = (node: unknown, path: string): void => {
    if (node === null || (isScalar(node) && node.value === null)) return
    if (!isMap(node)) {
      const where = path === '' ? 'The file' : `${path} (from ${at(node)})`
      problems.push(
        `${where} must contain keys and values, such as "${path === '' ? 'port' : '  burst'}: 8008".`,
      )
      return
    }
    for (const { key, value } of node.items) {
      const name = path === '' ? String(key) : `${path}.${String(key)}`
      if (sections.has(name)) visit(value, name)
      else if (!known.has(name))
        problems.push(`${quoted(name)} (from ${at(key)}) is an unknown key.${didYouMean(name, paths)}`)
      else if (isScalar(value) && value.value !== null) {
        const text =
          typeof value.value === 'string' ? value.value : (value.source ?? JSON.stringify(value.value))
        entries.set(name, { text, line: lines.linePos(value.range?.[0] ?? 0).line })
      } else problems.push(`${name} (from ${at(key)}) must have one value; omit the key to use the default.`)
    }
  }
  visit(document.contents, '')
  return { entries, problems }
}
