/**
 * The wait before keys are issued by a database server that was started, or by a database that was put in the place of
 * another: all processes that write first compare their counters with it, because a process that lost nothing must not
 * issue keys that another one issued and lost.
 *
 * The wait is counted in rounds of the process that waits, and not in time: a process that was stopped meanwhile has
 * counted nothing, and no clock can shorten the wait or make it endless (issue 11, A2).
 */

/** Rounds after which a process that has not verified is waited for no longer. */
export const VERIFY_ROUNDS = 100
/** Between two rounds, so that all rounds take at least ten seconds. */
export const ASK_EVERY_MS = 100

/**
 * The longest time from a commit to its answer, below that of all rounds. A process that was stopped for longer between
 * the two must not answer: others may have stopped waiting for it.
 */
export const ANSWER_WITHIN_MS = 8_000
