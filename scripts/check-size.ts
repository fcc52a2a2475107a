/**
 * `npm run check:size`: comments fit 120 columns, and no source file has more than 350 lines. The formatter wraps code
 * and leaves comments alone. Tests may be longer than a source file; tables of data are named below.
 */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const MAX_COLUMNS = 120
const MAX_LINES = 350

/** Tables of data, whose length says nothing about how much there is to understand. */
const TABLES = [/^packages\/server\/src\/config\/keys\.ts$/, /\/migrations\//]

const TEST = /\.test\.ts$|(^|\/)test\//
/** A line that begins as a comment, or ends with one. */
const COMMENT = /^\s*(\/\/|\/\*|\*)|\s\/\/ [^'"`]*$/

const ROOT = fileURLToPath(new URL('..', import.meta.url))

const findings = sourceFiles().flatMap(check)
for (const finding of findings) process.stderr.write(`${finding}\n`)
process.exitCode = findings.length === 0 ? 0 : 1

function sourceFiles(): string[] {
  const args = ['ls-files', '--cached', '--others', '--exclude-standard', '--deduplicate', '*.ts', '*.mjs']
  const files = execFileSync('git', args, { cwd: ROOT, encoding: 'utf8' }).split('\n')
  const deleted = new Set(
    execFileSync('git', ['ls-files', '--deleted'], { cwd: ROOT, encoding: 'utf8' }).split('\n'),
  )
  return files.filter((file) => file !== '' && !deleted.has(file))
}

function check(file: string): string[] {
  const lines = readFileSync(join(ROOT, file), 'utf8').trimEnd().split('\n')
  const wide = lines.flatMap((line, i) =>
    line.length > MAX_COLUMNS && COMMENT.test(line)
      ? [`${file}:${i + 1}: the comment has ${line.length} columns; wrap it at ${MAX_COLUMNS}.`]
      : [],
  )
  const isLong = lines.length > MAX_LINES && !TEST.test(file) && !TABLES.some((table) => table.test(file))
  return isLong
    ? [...wide, `${file}:${MAX_LINES + 1}: the file has ${lines.length} lines; split it at ${MAX_LINES}.`]
    : wide
}
