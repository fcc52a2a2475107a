/**
 * Daily budget of generated keys, regardless of the server's counts: a server that always reports none must not fill
 * the disk (MSC4162, review).
 */
import { spentToday, withSpent } from '../heal/day-budget.ts'
import type { Status } from './records.ts'

/** Keys generated in the last 24 hours. */
export function generatedToday({ generated }: Pick<Status, 'generated'>, now: number): number {
  return spentToday(generated, now)
}

/** The record after `count` more keys. */
export function withGenerated({ generated }: Status, count: number, now: number): Status['generated'] {
  return withSpent(generated, count, now)
}
