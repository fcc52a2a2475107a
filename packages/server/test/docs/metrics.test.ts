/**
 * docs/reference/metrics.md lists the metrics of observe/: all of them, nothing else, with their labels and meanings.
 */
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

/** What the library keeps of a metric beyond its types. */
type Defined = {
  readonly name: string
  readonly type: string
  readonly help: string
  readonly labelNames: readonly string[]
}

test('the metrics page has the table of the code', () => {
  const metrics = new Metrics()
  metrics.watch({ waitingSyncs: () => 0 })
  const own = [metrics.registry, new WorkerMetrics().registry].flatMap(definedIn)
  assert.deepEqual(tableUnder(PAGE, '## Every metric'), own.map(rowOf))
})

test('metrics that are not ours are those of the process, which the page names by their beginnings', () => {
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
