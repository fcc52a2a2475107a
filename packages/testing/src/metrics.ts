/** The part of Prometheus' text format that tests read. */
import assert from 'node:assert/strict'
import { setTimeout as wait } from 'node:timers/promises'

/** Values by name and labels as printed: `latchkey_claims_total{outcome="none"}`. */
export type Samples = ReadonlyMap<string, number>

export async function readMetrics(url: string): Promise<Samples> {
  const response = await fetch(url)
  const text = await response.text()
  assert.equal(response.status, 200, text)
  assert.match(response.headers.get('content-type') ?? '', /^text\/plain; version=0\.0\.4/)
  return samplesOf(text)
}

const WITHIN_MS = 20_000
/** Polling interval; the polled processes share the processors of this one. */
const POLL_EVERY_MS = 20

/** Polls until the condition is true. @throws {Error} when that takes longer than WITHIN_MS. */
export async function eventually(condition: () => Promise<boolean>): Promise<void> {
  const deadlineMs = performance.now() + WITHIN_MS
  while (!(await condition())) {
    if (performance.now() > deadlineMs)
      throw new Error(`the condition did not become true within ${WITHIN_MS} ms`)
    await wait(POLL_EVERY_MS)
  }
}

export function samplesOf(text: string): Samples {
  const lines = text.split('\n').filter((line) => line !== '' && !line.startsWith('#'))
  return new Map(
    lines.map((line) => {
      const end = line.lastIndexOf(' ')
      return [line.slice(0, end), Number(line.slice(end + 1))]
    }),
  )
}
