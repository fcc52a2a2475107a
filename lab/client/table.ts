/** The lines that the lab prints: what became of the messages, without and with the library, side by side. */
import type { Outcome, Scenario } from './scenario.ts'
import type { Played } from './play.ts'

const COLUMNS = ['sent', 'read', 'utd', 'lost', 'why?', 'twice', 'up', '400', 'dead'] as const

export const LEGEND = `Each half: messages sent and read; utd: not read although the private key was there, or should have been after the
first round; lost: not read because it was gone; why?: failures that nobody can explain, or that were explained wrongly; twice: read twice; up, 400:
uploads, and those refused; dead: keys that the server would issue and nobody holds.`

export function header(): string {
  const columns = COLUMNS.map((name) => name.padStart(5)).join('')
  return `${''.padEnd(38)} ${'without'.padEnd(45)}   with @latchkey/client\n${''.padEnd(38)} ${columns}   ${columns}`
}

export function line(scenario: Scenario, { without, with: withLibrary }: Played): string {
  const name = `${scenario.name} (${scenario.client})`
  return `${name.padEnd(38)} ${half(without)}   ${half(withLibrary)}`
}

/** What stands under a scenario's line. */
export function details(scenario: Scenario, { without, with: withLibrary }: Played): string[] {
  const causes = withLibrary.lost.map(
    ({ cause }) => `lost because: ${cause ?? `unexplained: ${scenario.inexplicable ?? 'nobody knows why'}`}`,
  )
  return [
    scenario.story,
    `without: ${[scenario.trouble, ...without.notes].join('; ')}`,
    `with:    ${[...new Set(causes), ...withLibrary.notes].join('; ') || 'all read'}`,
  ]
}

function half(outcome: Outcome): string {
  const { sent, read, undecryptable, lost, unexplained, readTwice, uploads, refused, orphans } = outcome
  const numbers = [sent, read, undecryptable, lost.length, unexplained, readTwice, uploads, refused, orphans]
  return numbers.map((number) => String(number).padStart(5)).join('')
}
