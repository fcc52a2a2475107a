/** @latchkey/client/node: what needs Node. */
export { fileStore, type FileStoreOptions } from './store/sqlite-file.ts'
