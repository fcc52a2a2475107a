/** Prometheus' text format, as far as tests read it. */
import assert from 'node:assert/strict'
import { setTimeout as wait } from 'node:timers/promises'

/** By name and labels as they stand on the page: `latchkey_claims_total{outcome="none"}`. */
export type Samples = ReadonlyMap<string, number>

export async function readMetrics(url: string): Promise<Samples> {
  const response = await fetch(url)
  const text = await response.text()
  assert.equal(response.status, 200, text)
  assert.match(response.headers.get('content-type') ?? '', /^text\/plain; version=0\.0\.4/)
  return samplesOf(text)
}

const WITHIN_MS = 20_000
/** Not oftener: what is asked are other processes, on the same processors. */
const POLL_EVERY_MS = 20

/** Asks again and again until what the test waits for is so; fails when that takes too long. */
export async function eventually(condition: () => Promise<boolean>): Promise<void> {
  const deadlineMs = performance.now() + WITHIN_MS
  while (!(await condition())) {
    if (performance.now() > deadlineMs) throw new Error('what the test waits for does not happen')
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
