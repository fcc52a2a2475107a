/** docs/reference/client-events.md has the events, causes and verdicts of the code: all of them and no others. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { tableUnder } from '@latchkey/testing/markdown-table.ts'
import { EVENT_TEXTS } from '../../src/emit.ts'
import { VERDICTS } from '../../src/events.ts'
import { HEAL_CAUSES } from '../../src/heal/heals.ts'

const PAGE = readFileSync(new URL('../../../../docs/reference/client-events.md', import.meta.url), 'utf8')

function column(heading: string, index: number): string[] {
  return tableUnder(PAGE, heading).map((cells) => (cells[index] ?? '').replaceAll('`', ''))
}

test('the events of the page are the events of the code, with their severity', () => {
  assert.deepEqual(column('## Events', 0), Object.keys(EVENT_TEXTS))
  assert.deepEqual(
    column('## Events', 1),
    Object.values(EVENT_TEXTS).map(({ severity }) => severity),
  )
})

test('the causes of the page are the causes of the code', () => {
  assert.deepEqual(column('## Causes of drift and heals', 0).toSorted(), [...HEAL_CAUSES].toSorted())
})

test('the verdicts of the page are the verdicts of the code', () => {
  assert.deepEqual(column('## Verdicts', 0), [...VERDICTS])
})
