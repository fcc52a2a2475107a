/**
 * docs/reference/errors.md lists the error codes of packages/protocol, with every status that the server sends with
 * them.
 */
import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { ERRCODES } from '@latchkey/protocol'
import { tableUnder } from '@latchkey/testing/markdown-table.ts'
import { REPOSITORY } from '@latchkey/testing/run-latchkey.ts'

const ROWS = tableUnder(readFileSync(join(REPOSITORY, 'docs/reference/errors.md'), 'utf8'), '## Every code')

test('the errors page has exactly the codes and meanings of the code', () => {
  const documented = ROWS.map(([errcode, , meaning]) => [errcode, meaning])
  const inCode = Object.entries(ERRCODES).map(([errcode, meaning]) => [`\`${errcode}\``, meaning])
  assert.deepEqual(documented, inCode)
})

test('the errors page has every status with which the code creates an error', () => {
  const made = new Set<string>()
  for (const file of globSync('packages/server/src/**/*.ts', { cwd: REPOSITORY })) {
    const source = readFileSync(join(REPOSITORY, file), 'utf8')
    for (const [, status, errcode] of source.matchAll(/new MatrixError\(\s*(\d{3}),\s*'([^']+)'/g))
      made.add(`${errcode} ${status}`)
  }
  assert.ok(made.size > 10)
  const documented = new Set(
    ROWS.flatMap(([errcode = '', statuses = '']) =>
      statuses.split(', ').map((status) => `${errcode.replaceAll('`', '')} ${status}`),
    ),
  )
  assert.deepEqual(
    [...made].filter((pair) => !documented.has(pair)),
    [],
  )
})
