/** Tables of the reference pages as rows of cells. */

/** Rows of the first table after a heading, without its header; escaped pipes (`\|`) are unescaped. */
export function tableUnder(markdown: string, heading: string): string[][] {
  const start = markdown.split('\n').indexOf(heading)
  if (start === -1) throw new Error(`no heading ${heading}`)
  const lines = markdown.split('\n').slice(start + 1)
  const first = lines.findIndex((line) => line.startsWith('|'))
  const after = lines.findIndex((line, index) => index > first && !line.startsWith('|'))
  return lines.slice(first + 2, after === -1 ? undefined : after).map(cellsOf)
}

function cellsOf(line: string): string[] {
  return line
    .split(/(?<!\\)\|/)
    .slice(1, -1)
    .map((cell) => cell.trim().replaceAll(String.raw`\|`, '|'))
}
