/** docs/reference/configuration.md lists exactly the keys of config/keys.ts, in the same order. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { ALL_KEYS, CONFIG_FILE, type Flag, type Key } from '../../src/config/keys.ts'
import { tableUnder } from '@latchkey/testing/markdown-table.ts'

const PAGE = readFileSync(new URL('../../../../docs/reference/configuration.md', import.meta.url), 'utf8')

test('the configuration page has the table of the code', () => {
  assert.deepEqual(tableUnder(PAGE, '## Every key'), ALL_KEYS.map(rowOf))
})

test('the configuration page names the flag and the variable of the file', () => {
  assert.ok(PAGE.includes(`\`${CONFIG_FILE.flag.name} ${CONFIG_FILE.flag.value}\``))
  assert.ok(PAGE.includes(`\`${CONFIG_FILE.variable}\``))
})

function rowOf({ path, variable, flag, kind, default: value, meaning }: Key<unknown>): string[] {
  return [
    `\`${path}\``,
    `\`${variable}\``,
    flag === undefined ? '' : `\`${flagText(flag)}\``,
    kind.expects,
    value === undefined ? '' : `\`${kind.format(value)}\``,
    meaning,
  ]
}

function flagText({ name, value }: Flag): string {
  return value === undefined ? name : `${name} ${value}`
}
