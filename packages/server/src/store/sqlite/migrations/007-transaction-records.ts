/**
 * Records of transactions in a fixed size (messages/transaction-memory.ts): the hash replaces up to 510 bytes of event
 * type and ID. They are carried over, so that a send repeated across the upgrade delivers nothing twice.
 *
 * The function receives bytes: Node.js 24.15 cuts a text off at the U+0000.
 */
import { hash } from 'node:crypto'

export const transactionRecords = `
update sent_transactions set transaction_id = transaction_record(cast(transaction_id as blob));
`

/** The SQL function `transaction_record`: from the bytes of the text before, event type and ID around a U+0000. */
export function transactionRecordOf(text: unknown): string {
  return hash('sha256', text as Uint8Array, 'base64url')
}
