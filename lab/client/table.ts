/** The lab's table: outcomes of messages without and with the library, side by side. */
import type { Outcome, Scenario } from './scenario.ts'
import type { BothOutcomes } from './run-both.ts'

const COLUMNS = ['sent', 'read', 'utd', 'lost', 'why?', 'twice', 'up', '400', 'dead'] as const

export const LEGEND = `Columns: messages sent and read; utd: not read although the private key was available, or should have been after the
first round; lost: not read because it was not available; why?: failures with no cause or a wrong one; twice: read twice;
up, 400: uploads, and refused uploads; dead: keys that the server would issue and whose private halves no device has.`

export function header(): string {
  const columns = COLUMNS.map((name) => name.padStart(5)).join('')
  return `${''.padEnd(38)} ${'without'.padEnd(45)}   with @latchkey/client\n${''.padEnd(38)} ${columns}   ${columns}`
}

export function line(scenario: Scenario, { without, with: withLibrary }: BothOutcomes): string {
  const name = `${scenario.name} (${scenario.client})`
  return `${name.padEnd(38)} ${half(without)}   ${half(withLibrary)}`
}

/** Details below a scenario's line. */
export function details(scenario: Scenario, { without, with: withLibrary }: BothOutcomes): string[] {
  const causes = withLibrary.lost.map(
    ({ cause }) => `lost because: ${cause ?? `no cause: ${scenario.inexplicable ?? 'unknown'}`}`,
  )
  return [
    scenario.story,
    `without: ${[scenario.problem, ...without.notes].join('; ')}`,
    `with:    ${[...new Set(causes), ...withLibrary.notes].join('; ') || 'all read'}`,
  ]
}

function half(outcome: Outcome): string {
  const { sent, read, undecryptable, lost, unexplained, readTwice, uploads, refused, deadKeys } = outcome
  const numbers = [sent, read, undecryptable, lost.length, unexplained, readTwice, uploads, refused, deadKeys]
  return numbers.map((number) => String(number).padStart(5)).join('')
}
