/** `--limit` and `--after` of the commands that print a list. */
import type { Command } from 'commander'
import { MAX_PAGE } from '../admin/page.ts'
import { whole } from '../config/kinds.ts'
import { quoted } from '../matrix-error.ts'
import { UsageError } from './describe-failure.ts'

const DEFAULT_LIMIT = 100
const LIMIT = whole(1, MAX_PAGE)

export function addPageOptions(command: Command): Command {
  return command
    .option('--limit <N>', `entries to print, at most ${MAX_PAGE} (default: ${DEFAULT_LIMIT})`)
    .option('--after <NAME>', 'begin after this entry')
}

/** @throws {UsageError} */
export function pageOf(command: Command): { readonly after: string; readonly limit: number } {
  const { limit, after } = command.opts<{ limit?: string; after?: string }>()
  const parsed = limit === undefined ? DEFAULT_LIMIT : LIMIT.parse(limit)
  if (parsed === undefined)
    throw new UsageError(`--limit must be ${LIMIT.expects}, not ${quoted(limit ?? '')}.`)
  return { after: after ?? '', limit: parsed }
}

/** The line that tells how to print the rest of a list. */
export function moreLine(next: string | null): string {
  return next === null ? '' : `There are more: add --after '${next}'.\n`
}
