/** Rules of the budget of unread answers, with a clock. */
import assert from 'node:assert/strict'
import test, { describe } from 'node:test'
import { MatrixError } from '../matrix-error.ts'
import type { UserRef } from '../session.ts'
import { AnswersInFlight, type CutCause } from './answers-in-flight.ts'

const [ALICE, BOB, CAROL] = [1 as UserRef, 2 as UserRef, 3 as UserRef]
const LIMITS = { answerBytesInFlight: 100, answerBytesPerUser: 60, answerTimeoutMs: 1000 }

class Answers {
  now = 0
  readonly cut: string[] = []
  readonly causes: CutCause[] = []
  readonly budget = new AnswersInFlight(LIMITS, () => this.now)

  hold(
    name: string,
    user: UserRef | undefined,
    bytes: number,
    { repeatable = true, isBeingWritten = (): boolean => true } = {},
  ): () => void {
    const cutOff = (cause: CutCause): void => {
      this.cut.push(name)
      this.causes.push(cause)
    }
    return this.budget.hold({ user, bytes, repeatable, isBeingWritten, cutOff })
  }
}

const refused = (run: () => unknown): void =>
  assert.throws(run, (error) => error instanceof MatrixError && error.status === 429)

describe('the budget of unread answers', () => {
  test('refuses a user above the bound of a user, until an answer is read', () => {
    const answers = new Answers()
    const release = answers.hold('1', ALICE, 40)
    answers.hold('2', ALICE, 20)
    refused(() => answers.hold('3', ALICE, 1))
    refused(() => answers.budget.requireRoom(ALICE, 1))
    answers.budget.requireRoom(BOB, 60)
    release()
    release()
    assert.equal(answers.budget.bytes, 20)
    answers.hold('4', ALICE, 40)
  })

  test('admits a larger answer of a user who has no other', () => {
    const answers = new Answers()
    answers.hold('1', ALICE, 61)
    refused(() => answers.hold('2', ALICE, 1))
  })

  test('never refuses the answer of a request that changed something', () => {
    const answers = new Answers()
    for (const name of ['1', '2', '3']) answers.hold(name, ALICE, 40, { repeatable: false })
    assert.deepEqual([answers.cut, answers.budget.bytes], [['1'], 80])
  })

  test('when it is full, the oldest answer of the user with the most gives way', () => {
    const answers = new Answers()
    answers.hold('b', BOB, 40)
    for (const name of ['1', '2', '3']) answers.hold(name, ALICE, 20)
    answers.hold('c', CAROL, 10)
    assert.deepEqual([answers.cut, answers.causes], [['1'], ['budget']])
    assert.equal(answers.budget.bytes, 90)
  })

  test('when it is full, the user with the most is refused', () => {
    const answers = new Answers()
    answers.hold('b', BOB, 50)
    answers.hold('1', ALICE, 40)
    refused(() => answers.hold('2', ALICE, 20))
    assert.deepEqual(answers.cut, [])
  })

  test('above the bound of anonymous requests, the oldest of them gives way', () => {
    const answers = new Answers()
    for (const name of ['1', '2', '3']) answers.hold(name, undefined, 30)
    assert.deepEqual([answers.cut, answers.budget.bytes], [['1'], 60])
  })

  test('cuts off an answer that is read at less than 1 KiB per second after the time limit', () => {
    const answers = new Answers()
    answers.hold('slow', ALICE, 2048 - 1990)
    let isWritten: boolean = false
    answers.hold('behind another', BOB, 1, { isBeingWritten: () => isWritten })
    answers.now = 1056
    answers.budget.cutSlow()
    assert.deepEqual(answers.cut, [])
    answers.now = 1057
    answers.budget.cutSlow()
    assert.deepEqual([answers.cut, answers.causes], [['slow'], ['slow']])
    isWritten = true
    answers.now = 2057
    answers.budget.cutSlow()
    assert.equal(answers.cut.length, 1, 'its time begins when it is written')
    answers.now = 2060
    answers.budget.cutSlow()
    assert.equal(answers.budget.bytes, 0)
  })

  test('holds what was admitted and neither released nor cut off, in 2 000 random steps, and nothing at the end', () => {
    const answers = new Answers()
    const open = new Map<string, { bytes: number; release: () => void }>()
    let seed = 7
    const random = (below: number): number => (seed = (seed * 48_271) % 2_147_483_647) % below
    for (let step = 0; step < 2000; step++) {
      answers.now += random(200)
      const kind = random(10)
      const [oldest] = open.values()
      if (kind < 5) {
        const bytes = 1 + random(50)
        const user = [ALICE, BOB, CAROL, undefined][random(4)]
        try {
          const release = answers.hold(String(step), user, bytes, { repeatable: random(2) === 0 })
          open.set(String(step), { bytes, release })
        } catch (error) {
          assert.ok(error instanceof MatrixError)
        }
      } else if (kind < 9) oldest?.release()
      else answers.budget.cutSlow()
      for (const name of answers.cut.splice(0)) open.delete(name)
      if (kind >= 5 && kind < 9) open.delete([...open.keys()][0] ?? '')
      const expected = [...open.values()].reduce((sum, { bytes }) => sum + bytes, 0)
      assert.equal(answers.budget.bytes, expected, `step ${step}`)
      assert.ok(expected <= LIMITS.answerBytesInFlight)
    }
    for (const { release } of open.values()) release()
    assert.equal(answers.budget.bytes, 0)
  })
})
