/** Results of commands: JSON for programs, a table for people. */

/** Prints `result` as JSON with `--json`, else the text. */
export function printResult(json: boolean | undefined, result: unknown, text: () => string): void {
  process.stdout.write(json ? `${JSON.stringify(result, undefined, 2)}\n` : text())
}

const WIDTH = 80
const GAP = '  '

/**
 * A table of at most 80 columns, if its cells without the last column fit; the last one is not cut if it is a name that
 * the reader copies.
 *
 * @param lastColumn `cut` shortens the last column to the width of the table
 */
export function table(
  header: readonly string[],
  rows: readonly (readonly string[])[],
  lastColumn: 'cut' | 'whole' = 'whole',
): string {
  const lines = [header, ...rows.map((row) => row.map(printable))]
  const widths = header.map((_, column) => Math.max(...lines.map((line) => line[column]?.length ?? 0)))
  return lines
    .map((line) =>
      line
        .map((cell, column) => cell.padEnd(widths[column] ?? 0))
        .join(GAP)
        .trimEnd(),
    )
    .map(
      (line) => `${lastColumn === 'cut' && line.length > WIDTH ? `${line.slice(0, WIDTH - 3)}...` : line}\n`,
    )
    .join('')
}

/** Control characters and those that change the direction of text could rewrite the terminal. */
export function printable(text: string): string {
  return text.replaceAll(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}]/gu, '?')
}

/** `2026-11-29 20:45` in UTC. */
export function time(ts: number | null): string {
  return ts === null ? '-' : new Date(ts).toISOString().slice(0, 16).replace('T', ' ')
}

export function plural(count: number, noun: string): string {
  return `${count} ${noun}${count === 1 ? '' : 's'}`
}
