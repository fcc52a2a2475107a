/**
 * Rows that are locked until the end of the transaction, as types: the statements that lock them select them under
 * these types, and functions that rely on a lock require them. The order of locks is in changes.ts.
 */
import type { DeviceRef, UserRef } from '../../session.ts'
import type { Transaction } from './database.ts'

declare const locked: unique symbol

/** Locked FOR UPDATE. */
export type LockedUser = UserRef & { readonly [locked]: 'update' }
/** Locked FOR UPDATE or FOR NO KEY UPDATE: against everything except, with the latter, messages to the device. */
export type LockedDeviceRef = DeviceRef & { readonly [locked]: 'update' }
/** Locked FOR KEY SHARE: the device is not removed, and senders do not wait for each other. */
export type RecipientRef = DeviceRef & { readonly [locked]: 'key share' }
/** Locked FOR UPDATE, or inserted by this transaction. */
export type LockedPoolNum = number & { readonly [locked]: 'pool' }
/** A transaction that has locked the stream, its last lock, and takes no other. */
export type LastStep = Transaction & { readonly [locked]: 'stream' }
