/**
 * How many keys may be made in a day, whatever the server says: one that always claims to have none must not fill the
 * disk or wear the store out (MSC4162, review).
 */
import { spentToday, withSpent } from '../heal/day-budget.ts'
import type { Status } from './records.ts'

/** Keys made in the last 24 hours. */
export function generatedToday({ generated }: Pick<Status, 'generated'>, now: number): number {
  return spentToday(generated, now)
}

/** The record after `count` more. */
export function withGenerated({ generated }: Status, count: number, now: number): Status['generated'] {
  return withSpent(generated, count, now)
}
