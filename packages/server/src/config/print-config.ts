/** Prints the effective configuration as an equivalent YAML file, with the source of each value that was set. */
import type { LoadedConfig } from './load-config.ts'

export function printConfig({ settings }: LoadedConfig): string {
  const lines: string[] = []
  let open: readonly string[] = []
  for (const { key, value, source } of settings) {
    const sections = key.path.split('.')
    const name = sections.pop() ?? ''
    const shared = sharedLength(open, sections)
    for (const [depth, section] of sections.entries())
      if (depth >= shared) lines.push(`${'  '.repeat(depth)}${section}:`)
    open = sections
    const indent = '  '.repeat(sections.length)
    const note = source === undefined ? '' : `  # from ${source}`
    lines.push(
      value === undefined
        ? `# ${name}: not set`
        : `${indent}${name}: ${quoteIfNeeded(key.kind.format(value))}${note}`,
    )
  }
  return `${lines.join('\n')}\n`
}

function sharedLength(a: readonly string[], b: readonly string[]): number {
  const different = b.findIndex((section, depth) => section !== a[depth])
  return different === -1 ? b.length : different
}

/** Plain YAML where that is safe, else a JSON string, which is also valid YAML. */
function quoteIfNeeded(text: string): string {
  return /^[0-9A-Za-z./][0-9A-Za-z._/:-]*$/.test(text) && !text.endsWith(':') ? text : JSON.stringify(text)
}
