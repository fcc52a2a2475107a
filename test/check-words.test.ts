/** `npm run check:words` finds words of its table in comments, strings and prose, and nowhere else. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { findWords } from '../scripts/check-words.ts'
import { BANNED_WORDS, type BannedWord } from '../scripts/words.ts'

/** A table of its own, because this file must pass the check too. */
const TABLE: readonly BannedWord[] = [
  [/\bwibble\b/i, 'move'],
  [/\bwibble wobble\b/, 'shake'],
]

function linesOf(file: string, lines: readonly string[]): string[] {
  return findWords(file, lines.join('\n'), TABLE).map(
    ({ line, words, instead }) => `${line} ${words} ${instead}`,
  )
}

test('a planted word is found in a comment and in a string, with its line and replacement', () => {
  assert.deepEqual(linesOf('a.ts', ['const a = 1', '// They wibble.', "const b = 'Wibble!'"]), [
    '2 wibble move',
    '3 Wibble move',
  ])
})

test('names in code and inline code in comments are not prose', () => {
  assert.deepEqual(linesOf('a.ts', ['const wibble = /x/', '/** Calls `wibble()`. */', 'wibble(wibble)']), [])
  assert.deepEqual(linesOf('a.md', ['The `wibble` command.']), [])
})

test('a phrase is found across the lines of a comment and of a paragraph, not across code', () => {
  const comments = ['/**', ' * They wibble', ' * wobble.', ' */', '// They wibble', '// wobble.']
  assert.deepEqual(linesOf('a.ts', comments).slice(2), ['2 wibble wobble shake', '5 wibble wobble shake'])
  assert.deepEqual(linesOf('a.md', ['They wibble', 'wobble.']).slice(1), ['1 wibble wobble shake'])
  assert.deepEqual(linesOf('a.ts', ["const a = ['wibble', 'wobble']"]), ['1 wibble move'])
})

test('the table of the project finds its own words, at the start of a comment too', () => {
  // Written with gaps, because this file must pass the check too.
  const planted = ['/** W', "hat is kept. */\nconst a = 'kept for", " ever'\n"].join('')
  const lines = findWords('a.ts', planted, BANNED_WORDS).map(({ line }) => line)
  assert.deepEqual(lines.toSorted(), [1, 2])
})
