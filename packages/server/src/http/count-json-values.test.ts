import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { countJsonValues } from './count-json-values.ts'

const count = (text: string): number => countJsonValues(Buffer.from(text))

function walk(value: unknown): number {
  if (typeof value !== 'object' || value === null) return 1
  return Object.values(value).reduce<number>((sum, member) => sum + walk(member), 1)
}

test('the values of any JSON text are counted, with and without white space', () => {
  fc.assert(
    fc.property(fc.jsonValue(), fc.constantFrom(undefined, 2, '\t'), (value, space) => {
      assert.equal(count(JSON.stringify(value, undefined, space)), walk(value))
    }),
  )
})

test('brackets, commas and quotation marks inside strings and names do not count', () => {
  assert.equal(count('["[1,2,{", "\\"[,", "\\\\"]'), 4)
  assert.equal(count('{"a,[\\",{": {"b": []}, "c": [ ]}'), 4)
})

test('text that is not valid JSON is counted without an error', () => {
  for (const text of ['', '"', '"\\', '[[[[', ']]', ',,', '{"a']) assert.ok(count(text) >= 1, text)
})
