/** The import of an embedded installation into PostgreSQL, for the command. */
export {
  importSqlite,
  type ImportOptions,
  type ImportProgress,
  type ImportSummary,
  undoMove,
} from './import-sqlite.ts'
