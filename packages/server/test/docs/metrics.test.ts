/** docs/reference/metrics.md lists exactly the metrics of observe/, with their labels and meanings. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import type { Registry } from 'prom-client'
import { Metrics } from '../../src/observe/metrics.ts'
import { WorkerMetrics } from '../../src/observe/worker-metrics.ts'
import { tableUnder } from '@latchkey/testing/markdown-table.ts'
import { REPOSITORY } from '@latchkey/testing/run-latchkey.ts'

const PAGE = readFileSync(join(REPOSITORY, 'docs/reference/metrics.md'), 'utf8')

/** Members of a metric that the library has and its types do not. */
type Defined = {
  readonly name: string
  readonly type: string
  readonly help: string
  readonly labelNames: readonly string[]
}

test('the metrics page has the table of the code', () => {
  const metrics = new Metrics()
  metrics.watch({ waitingSyncs: () => 0, answerBytes: () => 0 })
  const own = [metrics.registry, new WorkerMetrics().registry].flatMap(definedIn)
  assert.deepEqual(tableUnder(PAGE, '## Every metric'), own.map(rowOf))
})

test('all other metrics are process metrics, and the page names their prefixes', () => {
  const all = new Metrics().registry.getMetricsAsArray().map(({ name }) => name)
  assert.deepEqual(
    all.filter((name) => !/^(?:latchkey|process|nodejs)_/.test(name)),
    [],
  )
  for (const beginning of ['process_', 'nodejs_']) assert.ok(PAGE.includes(`\`${beginning}`))
})

function definedIn(registry: Registry): Defined[] {
  const all = registry.getMetricsAsArray() as unknown as Defined[]
  return all.filter(({ name }) => name.startsWith('latchkey_'))
}

function rowOf({ name, type, labelNames, help }: Defined): string[] {
  return [`\`${name}\``, type, labelNames.map((label) => `\`${label}\``).join(', '), help]
}
