import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { markInexactNumbers } from './inexact-numbers.ts'

const marked = (text: string): string | undefined => markInexactNumbers(Buffer.from(text))?.toString()

test('numbers with a fraction or an exponent are marked, and no others', () => {
  assert.equal(marked('[1.5,{"a":-1.0},1e3,-2E+5,0.5e-7]'), '[1e999,{"a":1e999},1e999,1e999,1e999]')
  assert.equal(marked('1.0'), '1e999')
  for (const text of [
    '[1,-2,0,-0,12345678901234567890]',
    '{"a":true,"b":null}',
    '"1.5"',
    '{"1e3":"-1.5\\"2.5"}',
  ])
    assert.equal(marked(text), undefined, text)
})

test('every number of any JSON is kept if it is an integer, and infinite otherwise', () => {
  const expected = (value: unknown): unknown => {
    if (typeof value === 'number') return /^-?\d+$/.test(JSON.stringify(value)) ? value : Infinity
    if (Array.isArray(value)) return value.map(expected)
    if (typeof value !== 'object' || value === null) return value
    const members = Object.entries(value).map(([name, member]) => [name, expected(member)] as const)
    return Object.fromEntries(members)
  }
  fc.assert(
    fc.property(fc.jsonValue(), fc.constantFrom(undefined, 2), (value, space) => {
      const text = JSON.stringify(value, undefined, space)
      assert.deepEqual(JSON.parse(marked(text) ?? text), expected(JSON.parse(text)))
    }),
  )
})
