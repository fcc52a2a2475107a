/** The import of an embedded installation into PostgreSQL: what the command uses of it. */
export {
  importSqlite,
  type ImportOptions,
  type ImportProgress,
  type ImportSummary,
  undoMove,
} from './import-sqlite.ts'
