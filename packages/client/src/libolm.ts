/** @latchkey/client/libolm: the key manager over libolm, `@matrix-org/olm`. */
export { libolmAccounts, type LibolmModule } from './olm/libolm-account.ts'
