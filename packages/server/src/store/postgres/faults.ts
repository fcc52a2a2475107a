/** Errors of the driver and of PostgreSQL: which are tried again, and which are faults that a client may retry. */
import pg from 'pg'
import { MatrixError, unavailable } from '../../matrix-error.ts'
import { StoreError } from '../store-error.ts'
import { asOtherBackend } from './backends.ts'

/** Deadlock, serialization failure. */
export function isTryAgain(error: unknown): boolean {
  return error instanceof pg.DatabaseError && (error.code === '40P01' || error.code === '40001')
}

/**
 * Faults of the connection, the primary or its disk: classes 08 (connection), 53 (out of memory, disk, connections),
 * 57 (shut down, cancelled by a timeout), 55P03 (lock timeout), 25006 (this is a standby), 0A000 (`isStalePlan`),
 * 58 and XX (its files), 40 (retries used up). A wrong statement is a bug and is reported as one.
 */
const FAULTS = /^(?:08|53|57|58|XX|40)|^(?:55P03|25006|0A000)$/

/** 503 for a fault; any other error unchanged. */
export function asUnavailable(error: unknown): unknown {
  if (error instanceof MatrixError || error instanceof StoreError) return error
  const otherBackend = asOtherBackend(error)
  if (otherBackend !== undefined) return otherBackend
  const isFault = error instanceof pg.DatabaseError ? FAULTS.test(error.code ?? '') : isConnectionFault(error)
  if (!isFault) return error
  const failure = unavailable('The database failed; nothing of this request was acknowledged.')
  failure.cause = error
  return failure
}

/** Errors of Node and of the driver when a connection ends; the driver's own errors have no code. */
function isConnectionFault(error: unknown): boolean {
  if (!(error instanceof Error)) return false
  return (
    ('code' in error && typeof error.code === 'string' && /^E[A-Z]+$/.test(error.code)) ||
    /^(?:Connection terminated|Query read timeout|Client has encountered a connection error|Client was closed|timeout)/.test(
      error.message,
    )
  )
}

/** A statement was planned on this connection before a migration changed its result columns. */
export function isStalePlan(error: unknown): error is Error {
  return error instanceof pg.DatabaseError && error.code === '0A000'
}

/** The driver's error for a statement without an answer in time. */
export function isSilence(error: unknown): error is Error {
  return error instanceof Error && error.message === 'Query read timeout'
}
