/** The user that an operator names: by localpart, `alice`, or by user ID, `@alice:example.org`. */
import { parseUserId } from '@latchkey/protocol'
import { invalidParam, quoted } from '../matrix-error.ts'
import type { AdminDeps } from './command.ts'

/** @throws {MatrixError} for a user of another server. */
export function localpartOf({ serverName }: Pick<AdminDeps, 'serverName'>, name: string): string {
  if (!name.startsWith('@')) return name
  const parsed = parseUserId(name)
  if (parsed?.serverName === serverName) return parsed.localpart
  throw invalidParam(`Expected a user of this server, @name:${serverName}, not ${quoted(name)}.`)
}
