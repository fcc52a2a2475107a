/**
 * The memory of transaction IDs (client-server API, "Transaction identifiers"): a device's repeated `/sendToDevice`
 * delivers nothing twice. A record is a hash of fixed size (issue 11, C4). It counts for exactly 24 hours, and each
 * device has a bounded number of records.
 */
import { hash } from 'node:crypto'
import { LRUCache } from 'lru-cache'
import type { DeviceRef } from '../session.ts'

/** Lifetime of a transaction ID. After it the same ID is a new transaction. */
export const REMEMBER_TRANSACTION_MS = 24 * 60 * 60 * 1000

/**
 * Records per device, of about 100 bytes each. Beyond it the oldest are forgotten early: a client retries its latest
 * transactions, and 50 000 later ones have been carried out since.
 */
export const TRANSACTIONS_PER_DEVICE = 50_000
/** Records that a device may add between two checks of that number. */
const CHECK_EVERY = 1_000
/** Devices whose records are counted: about 100 bytes each. One that is dropped has its next check later. */
const MAX_COUNTED = 50_000

/**
 * The record of a transaction of one device: SHA-256 of its event type and ID, 43 characters. The U+0000 that separates
 * the two occurs in neither.
 */
export function transactionRecord(eventType: string, transactionId: string): string {
  return hash('sha256', `${eventType}\0${transactionId}`, 'base64url')
}

/** A transaction that was carried out before this time counts as forgotten at `now`, whether or not it is swept. */
export function transactionsForgottenBefore(now: number): number {
  return now - REMEMBER_TRANSACTION_MS
}

/** @param sentTs the last time that the device carried out this transaction */
export function isRemembered(sentTs: number | undefined, now: number): boolean {
  return sentTs !== undefined && sentTs >= transactionsForgottenBefore(now)
}

/** Counts the records that devices add in this process, so that their total is checked once in a thousand. */
export class AddedTransactions {
  readonly #added = new LRUCache<DeviceRef, number>({ max: MAX_COUNTED })

  /** Counts a record. Returns whether the store has to delete the device's oldest beyond `TRANSACTIONS_PER_DEVICE`. */
  add(device: DeviceRef): boolean {
    const added = (this.#added.get(device) ?? 0) + 1
    const isDue = added >= CHECK_EVERY
    this.#added.set(device, isDue ? 0 : added)
    return isDue
  }
}
