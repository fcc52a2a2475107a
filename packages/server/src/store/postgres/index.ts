/** The PostgreSQL store: any number of processes over one database. Each operation is a file of this folder. */
export {
  migratePostgres,
  openPostgresStore,
  type PostgresStoreOptions,
} from './open-store.ts'
export { adoptPostgresFence, postgresFenceStatus, raisePostgresFence } from './fence-commands.ts'
