/**
 * The wait before keys are issued by a database server that was started: all processes that wrote recently first
 * compare their counters with it, because a process that lost nothing must not issue keys that another one issued and
 * lost.
 */

/** Longest wait for other processes. */
export const VERIFY_WITHIN_MS = 10_000
/** A process counts as running if it wrote this recently. */
export const WROTE_WITHIN_MS = 10 * 60 * 1000
