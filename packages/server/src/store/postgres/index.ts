/** The PostgreSQL store: any number of processes over one database. Implements every room's port; each operation is a file of this folder. */
export {
  migratePostgres,
  openPostgresAccounts,
  openPostgresStore,
  type PostgresStoreOptions,
} from './open-store.ts'
export { adoptPostgresFence, postgresFenceStatus, raisePostgresFence } from './fence-commands.ts'
