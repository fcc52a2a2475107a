/** docs/reference/security-log.md lists exactly the events of observe/security-events.ts, with members and meanings. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { tableUnder } from '@latchkey/testing/markdown-table.ts'
import { REPOSITORY } from '@latchkey/testing/run-latchkey.ts'
import { SECURITY_EVENTS } from '../../src/observe/security-events.ts'

const PAGE = readFileSync(join(REPOSITORY, 'docs/reference/security-log.md'), 'utf8')

test('the page of the security log has the table of the code', () => {
  const rows = Object.entries(SECURITY_EVENTS).map(([event, { members, meaning }]) => [
    `\`${event}\``,
    members.map((member) => `\`${member}\``).join(', '),
    meaning,
  ])
  assert.deepEqual(tableUnder(PAGE, '## Every event'), rows)
})
