/** The user that an operator names: by localpart, `alice`, or by user ID, `@alice:example.org`. */
import { parseUserId } from '@latchkey/protocol'
import { meantUserId } from '../accounts/user-name.ts'
import { didYouMean } from '../config/did-you-mean.ts'
import { invalidParam, notFound, quoted } from '../matrix-error.ts'
import type { AdminDeps } from './command.ts'
import type { UserEntry } from './port.ts'

/** Users whose names are compared with a mistyped one. */
const MAX_COMPARED = 1000

/** @throws {MatrixError} for a user of another server. */
export function localpartOf({ serverName }: Pick<AdminDeps, 'serverName'>, name: string): string {
  if (!name.startsWith('@')) return name
  const parsed = parseUserId(name)
  if (parsed?.serverName === serverName) return parsed.localpart
  throw invalidParam(`Expected a user of this server, @name:${serverName}, not ${quoted(name)}.`)
}

/** @throws {MatrixError} for a user of another server, or one that does not exist; it suggests a similar name. */
export async function namedUser(deps: AdminDeps, name: string): Promise<UserEntry> {
  const localpart = localpartOf(deps, name)
  const userId = meantUserId(localpart, deps.serverName)
  const user = userId && (await deps.admin.user(userId))
  if (user !== undefined) return user
  const similar = await deps.admin.users({ after: `@${localpart.slice(0, 1)}`, limit: MAX_COMPARED })
  const names = similar.map((entry) => localpartOf(deps, entry.userId))
  throw notFound(`There is no user ${quoted(localpart)} on this server.${didYouMean(localpart, names)}`)
}
