/**
 * `npm run check:words`: reports banned words in comments, strings and Markdown, with file, line and replacement.
 * With path prefixes as arguments it reports only what is under them:
 * `npm run check:words -- packages/server/src/pool`. Inline code (between backticks) is not checked.
 */
import { execFileSync } from 'node:child_process'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { BANNED_WORDS, type BannedWord } from './words.ts'

export type Finding = {
  readonly file: string
  readonly line: number
  readonly words: string
  readonly instead: string
}

const ROOT = fileURLToPath(new URL('..', import.meta.url))
const CHECKED_FILE = /\.(?:ts|mjs|md)$/
/** Comments and string literals. Quotes inside of a regular expression mislead it for the rest of that line only. */
const COMMENT_OR_STRING =
  /\/\*[\s\S]*?\*\/|\/\/[^\n]*|'(?:\\.|[^'\\\n])*'|"(?:\\.|[^"\\\n])*"|`(?:\\.|[^`\\])*`/g
const COMMENT_MARKS = /^\/\*+|^\/\/|\*\/$|(?<=\n\s*)\*/g
const INLINE_CODE = /`[^`\n]*`/g
/** Replaces code, so that a phrase never matches across it. */
const CODE = '·'

if (process.argv[1] === fileURLToPath(import.meta.url)) {
  const wanted = process.argv.slice(2)
  const findings = trackedFiles()
    .filter((file) => wanted.length === 0 || isUnder(file, wanted))
    .flatMap((file) => findWords(file, readFileSync(join(ROOT, file), 'utf8'), BANNED_WORDS))
  for (const { file, line, words, instead } of findings)
    process.stdout.write(`${file}:${line}: "${words}"; use: ${instead}\n`)
  if (findings.length > 0) process.exitCode = 1
}

/** The banned words in the prose of one file, in the order of the table. */
export function findWords(file: string, text: string, table: readonly BannedWord[]): Finding[] {
  const prose = file.endsWith('.md') ? proseOfMarkdown(text) : proseOfCode(text)
  return table.flatMap(([pattern, instead]) =>
    [...prose.matchAll(overLines(pattern))].map((match) => {
      const start = match.index + match[0].search(/[^\s·]/)
      const words = match[0].replaceAll(/[\s·]+/g, ' ').trim()
      return { file, line: prose.slice(0, start).split('\n').length, words, instead }
    }),
  )
}

/** The text with inline code blanked; positions stay the same. */
function proseOfMarkdown(text: string): string {
  return text.replaceAll(INLINE_CODE, blankCode)
}

/** The comments and strings of a source file; code is blanked and positions stay the same. */
function proseOfCode(text: string): string {
  let prose = ''
  let end = 0
  for (const match of text.matchAll(COMMENT_OR_STRING)) {
    prose += blankCode(text.slice(end, match.index)) + proseOfToken(match[0])
    end = match.index + match[0].length
  }
  return prose + blankCode(text.slice(end))
}

function proseOfToken(token: string): string {
  if (!token.startsWith('/')) return token
  return token.replaceAll(COMMENT_MARKS, (mark) => ' '.repeat(mark.length)).replaceAll(INLINE_CODE, blankCode)
}

function blankCode(code: string): string {
  return code.replaceAll(/\S/g, CODE)
}

/** The pattern with every space matching any white space. */
function overLines({ source, flags }: RegExp): RegExp {
  return new RegExp(source.replaceAll(/ (?!\?)/g, '\\s+').replaceAll(' ?', '\\s*'), `g${flags}`)
}

function trackedFiles(): string[] {
  const files = execFileSync('git', ['ls-files', '-z'], { cwd: ROOT, encoding: 'utf8' }).split('\0')
  return files.filter((file) => CHECKED_FILE.test(file))
}

function isUnder(file: string, prefixes: readonly string[]): boolean {
  return prefixes.some(
    (prefix) => file === prefix || file.startsWith(prefix.endsWith('/') ? prefix : `${prefix}/`),
  )
}
