/** The server name of a database: the first start fixes it, and it never changes. */
import { StoreError } from './store-error.ts'

export const DEFAULT_SERVER_NAME = 'localhost'

/**
 * @param otherDatabase how an operator sets another database
 * @throws {StoreError} when the configured name is not the database's.
 */
export function requireServerName(held: string, configured: string | undefined, otherDatabase: string): void {
  if (configured === undefined || configured === held) return
  throw new StoreError(
    `This database belongs to the server name ${held}, which cannot change; configured is ${configured}. Leave --server-name out, or use ${otherDatabase}.`,
  )
}
