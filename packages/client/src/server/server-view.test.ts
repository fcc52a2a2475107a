/** Which answer is newer: the table in server-view.ts, row by row, and for every order of arrival. */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { classifyAnswer as judgeAt, isKnown, learn, type Learned, type ServerView } from './server-view.ts'

const pool = (version: number, epoch = 'one') => ({ epoch, version, generation: 0, digest: {}, fallback: {} })

function answer(more: Partial<Learned>): Learned {
  return { counts: { signed_curve25519: 50 }, keyPool: undefined, begunAt: 0, isChange: false, ...more }
}

const VIEW: ServerView = learn(undefined, answer({ keyPool: pool(10) }), 4)

/** In the state that the view was learned in, or a later one. */
const classifyAnswer = (view: ServerView | undefined, learned: Learned, generation = 100) =>
  judgeAt(view, learned, generation)

test('the first answer is newer', () => {
  assert.equal(classifyAnswer(undefined, answer({})), 'newer')
})

test('an equal or higher version is newer, whenever its request began', () => {
  assert.equal(classifyAnswer(VIEW, answer({ keyPool: pool(10), begunAt: 0 })), 'newer')
  assert.equal(classifyAnswer(VIEW, answer({ keyPool: pool(11), begunAt: 0 })), 'newer')
})

test('a lower version is stale if its request began before the higher one was learned; else it is a rollback', () => {
  assert.equal(VIEW.learnedAt, 5)
  assert.equal(classifyAnswer(VIEW, answer({ keyPool: pool(9), begunAt: 4 })), 'stale')
  assert.equal(classifyAnswer(VIEW, answer({ keyPool: pool(9), begunAt: 5 })), 'rolled_back')
})

test('another epoch counts only if its request began after the known one was learned', () => {
  assert.equal(classifyAnswer(VIEW, answer({ keyPool: pool(99, 'two'), begunAt: 4 })), 'stale')
  assert.equal(classifyAnswer(VIEW, answer({ keyPool: pool(1, 'two'), begunAt: 5 })), 'new_epoch')
})

test('without versions, a request begun before the last acknowledged change is stale, and a change never is', () => {
  const view = learn(undefined, answer({ isChange: true }), 4)
  assert.equal(classifyAnswer(view, answer({ begunAt: 4 })), 'stale')
  assert.equal(classifyAnswer(view, answer({ begunAt: 5 })), 'newer')
  assert.equal(classifyAnswer(view, answer({ begunAt: 0, isChange: true })), 'newer')
})

test('in a store that restarts its count on copied records, every new answer is newer despite other writes', () => {
  assert.equal(classifyAnswer(VIEW, answer({ keyPool: pool(1, 'two'), begunAt: 1 }), 1), 'new_epoch')
  assert.equal(classifyAnswer(VIEW, answer({ keyPool: pool(9), begunAt: 1 }), 1), 'rolled_back')
  assert.equal(classifyAnswer(VIEW, answer({ keyPool: pool(1, 'two'), begunAt: 1 }), 3), 'new_epoch')
  const relearned = learn(VIEW, answer({ keyPool: pool(11), begunAt: 1 }), 3)
  assert.equal(classifyAnswer(relearned, answer({ keyPool: pool(9), begunAt: 3 }), 4), 'stale')
  const changed = learn(undefined, answer({ isChange: true }), 40)
  assert.equal(classifyAnswer(changed, answer({ begunAt: 1 }), 1), 'newer')
  const view = learn(changed, answer({ begunAt: 1 }), 1)
  assert.equal(classifyAnswer(view, answer({ begunAt: 1 }), 30), 'newer')
})

test('unknown is not zero: an answer without counts changes none', () => {
  const view = learn(VIEW, answer({ counts: undefined, keyPool: pool(11) }), 5)
  assert.deepEqual(view.counts, { signed_curve25519: 50 })
})

test('a new epoch discards the counts and the verified digests of the old one', () => {
  const before = { ...VIEW, verified: { signed_curve25519: 'digest' } }
  const view = learn(before, answer({ counts: {}, keyPool: pool(1, 'two') }), 5)
  assert.deepEqual(view.counts, {})
  assert.equal(view.verified, undefined)
})

test('an answer without new information need not be written', () => {
  assert.equal(isKnown(VIEW, answer({ keyPool: pool(10) })), true)
  assert.equal(isKnown(VIEW, answer({ keyPool: pool(11) })), false)
  assert.equal(isKnown(VIEW, answer({ counts: { signed_curve25519: 49 }, keyPool: pool(10) })), false)
  assert.equal(isKnown(VIEW, answer({ counts: undefined, keyPool: pool(10) })), true)
})

test('regardless of the order in which answers arrive, the view ends with the highest version', () => {
  const requests = fc.array(fc.record({ begun: fc.nat(20), extra: fc.nat(5) }), {
    minLength: 1,
    maxLength: 20,
  })
  fc.assert(
    fc.property(requests, (script) => {
      // The server's version is the generation at which a request began, plus a small number: it only grows.
      let view: ServerView | undefined
      let generation = 0
      let highest = 0
      for (const { begun, extra } of script) {
        const begunAt = Math.min(begun, generation)
        const version = begunAt + extra
        const learned = answer({ keyPool: pool(version), begunAt })
        const verdict = classifyAnswer(view, learned)
        highest = Math.max(highest, version)
        if (verdict === 'stale') {
          assert.ok(version < (view?.keyPool?.version ?? 0))
          continue
        }
        if (verdict === 'rolled_back') return // begun after a higher version was learned: impossible for one server
        view = learn(view, learned, generation++)
        assert.equal(view.keyPool?.version, highest)
      }
    }),
  )
})

test('algorithms invented by a server are not remembered without limit', () => {
  let view = VIEW
  for (let i = 0; i < 100; i++) {
    view = learn(view, answer({ counts: { signed_curve25519: i, [`invented${i}`]: 1 } }), i)
    assert.equal(view.counts['signed_curve25519'], i)
  }
  assert.ok(Object.keys(view.counts).length <= 16)
})
