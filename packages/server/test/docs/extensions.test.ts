/** docs/reference/extensions.md has exactly the names of the code. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import * as protocol from '@latchkey/protocol'
import { DEFAULT_CONFIG } from '../../src/config/config.ts'
import { clientApi } from '../../src/http/client-api/index.ts'
import { tableUnder } from '@latchkey/testing/markdown-table.ts'

const PAGE = readFileSync(new URL('../../../../docs/reference/extensions.md', import.meta.url), 'utf8')

function firstColumn(heading: string): string[] {
  return tableUnder(PAGE, heading).map(([cell = '']) => cell.replaceAll('`', ''))
}

test('the members on the page are the members in the code', () => {
  const inCode = Object.values(protocol).filter(
    (value) => typeof value === 'string' && value.startsWith('dev.latchkey.'),
  )
  assert.deepEqual(firstColumn('## Members').toSorted(), inCode.toSorted())
})

test('the paths on the page are the endpoints that the specification does not have', () => {
  const own = clientApi(DEFAULT_CONFIG)
    .filter(({ path }) => path.includes('/keys/reset') || path.includes('dev.latchkey'))
    .map(
      ({ method, path }) => `${method} ${path.startsWith('/_matrix') ? path : `/_matrix/client/v3${path}`}`,
    )
  assert.deepEqual(firstColumn('## Paths').toSorted(), own.toSorted())
})

test('the outcomes on the page are the outcomes in the code', () => {
  assert.deepEqual(firstColumn('Outcomes of one-time keys:'), [...protocol.UPLOAD_OUTCOMES])
  const line = PAGE.split('\n').find((text) => text.startsWith('Outcomes of fallback keys:')) ?? ''
  for (const outcome of protocol.FALLBACK_KEY_OUTCOMES) assert.ok(line.includes(`\`${outcome}\``), outcome)
})

test('the page names the feature flags', () => {
  for (const flag of Object.keys(protocol.UNSTABLE_FEATURES)) assert.ok(PAGE.includes(`\`${flag}\``))
})
