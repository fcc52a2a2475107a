import assert from 'node:assert/strict'
import test, { describe } from 'node:test'
import { MatrixError } from '../matrix-error.ts'
import { enforceAccountDataLimits } from './account-data.ts'

const LIMITS = { accountDataTypesPerUser: 2, accountDataTotalBytes: 20 }

describe('account data of a user', () => {
  const rows = [
    ['may have the last type that is allowed', 1, 0, 'type', '{}', undefined],
    ['may not have another type above the limit', 2, 0, 'type', '{}', 400],
    ['may have all the bytes that are allowed', 1, 14, 'type', '{}', undefined],
    ['may not have one byte more', 1, 15, 'type', '{}', 413],
    ['is counted in bytes of UTF-8', 0, 14, 'typé', '{}', 413],
    ['counts its content', 0, 14, 'type', '{ }', 413],
    ['names the number of types before the bytes', 2, 99, 'type', '{}', 400],
  ] as const
  for (const [name, count, bytes, type, content, status] of rows) {
    test(name, () => {
      const run = (): void => enforceAccountDataLimits({ count, bytes }, { type, content }, LIMITS)
      if (status === undefined) return run()
      assert.throws(run, (error) => error instanceof MatrixError && error.status === status)
    })
  }
})
