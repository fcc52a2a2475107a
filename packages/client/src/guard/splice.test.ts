import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { findMember, spliceMember } from './splice.ts'

test('a member is replaced, and every other byte stays', () => {
  const text = '{ "a" : 1.50 , "b":{"c" : [ 1,{"c":2}], "d":"\\"}" } , "e":12345678901234567890 }'
  assert.equal(spliceMember(text, ['b', 'c'], '0'), text.replace('[ 1,{"c":2}]', '0'))
  assert.equal(spliceMember(text, ['e'], 'null'), text.replace('12345678901234567890', 'null'))
})

test('a missing member is added to its object; a missing object is not created', () => {
  assert.equal(spliceMember('{"a":{}}', ['a', 'b'], '1'), '{"a":{"b":1}}')
  assert.equal(spliceMember(' {"a":2}', ['b'], '1'), ' {"b":1,"a":2}')
  assert.equal(spliceMember('{"a":[]}', ['a', 'b'], '1'), undefined)
  assert.equal(spliceMember('{"a":1}', ['x', 'b'], '1'), undefined)
})

test('of duplicate members the last one counts, as in JSON.parse; escaped names are read', () => {
  const text = '{"a":1,"\\u0061":2}'
  assert.equal(spliceMember(text, ['a'], '3'), '{"a":1,"\\u0061":3}')
})

test('for any JSON, the value found is the one that JSON.parse finds', () => {
  fc.assert(
    fc.property(
      fc.dictionary(fc.string(), fc.jsonValue()),
      fc.integer({ min: 0, max: 4 }),
      (object, indent) => {
        const text = JSON.stringify(object, undefined, indent)
        for (const [name, value] of Object.entries(object)) {
          const range = findMember(text, 0, name)
          assert.ok(range)
          assert.deepEqual(JSON.parse(text.slice(range.start, range.end)), JSON.parse(JSON.stringify(value)))
          const spliced = spliceMember(text, [name], '"spliced"')
          assert.deepEqual(
            JSON.parse(spliced ?? ''),
            JSON.parse(JSON.stringify({ ...object, [name]: 'spliced' })),
          )
        }
      },
    ),
  )
})
