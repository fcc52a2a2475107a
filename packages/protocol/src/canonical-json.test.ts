import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { canonicalJson, CanonicalJsonError, type Json } from './canonical-json.ts'

const text = fc.string({ unit: 'binary' }) // every code point except surrogates
const json = fc.letrec<{ value: Json }>((tie) => ({
  value: fc.oneof(
    { depthSize: 'small' },
    fc.constant(null),
    fc.boolean(),
    fc.maxSafeInteger(),
    text,
    fc.array(tie('value')),
    fc.dictionary(text, tie('value')),
  ),
})).value

test('canonical JSON is JSON for the same value', () => {
  fc.assert(
    fc.property(json, (value) =>
      assert.deepEqual(JSON.parse(canonicalJson(value)), JSON.parse(JSON.stringify(value))),
    ),
  )
})

test('canonical JSON does not depend on the order of members', () => {
  fc.assert(
    fc.property(fc.uniqueArray(fc.tuple(text, json), { selector: ([key]) => key }), (entries) => {
      const forwards = Object.fromEntries(entries)
      const backwards = Object.fromEntries(entries.toReversed())
      assert.equal(canonicalJson(forwards), canonicalJson(backwards))
    }),
  )
})

test('members are ordered by their UTF-8 bytes, which is code point order', () => {
  fc.assert(
    fc.property(fc.uniqueArray(text), (keys) => {
      const object = Object.fromEntries(keys.map((key) => [key, 0]))
      const expected = keys.toSorted((a, b) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
      assert.equal(canonicalJson(object), `{${expected.map((key) => `${JSON.stringify(key)}:0`).join(',')}}`)
    }),
  )
})

test('an emoji sorts after U+FFFD, which UTF-16 order would put last', () => {
  assert.equal(canonicalJson({ '\u{1F600}': 1, '\uFFFD': 2 }), '{"\uFFFD":2,"\u{1F600}":1}')
})

test("the specification's examples have the specified output", () => {
  const examples: [Json, string][] = [
    [{}, '{}'],
    [{ one: 1, two: 'Two' }, '{"one":1,"two":"Two"}'],
    [{ b: '2', a: '1' }, '{"a":"1","b":"2"}'],
    [
      { auth: { success: true, mxid: '@john.doe:example.com', profile: { display_name: 'John Doe' } } },
      '{"auth":{"mxid":"@john.doe:example.com","profile":{"display_name":"John Doe"},"success":true}}',
    ],
    [{ a: '日本語' }, '{"a":"日本語"}'],
    [{ 本: 2, 日: 1 }, '{"日":1,"本":2}'],
    [{ a: null }, '{"a":null}'],
    [{ a: -0, b: 1e10 }, '{"a":0,"b":10000000000}'],
  ]
  for (const [value, expected] of examples) assert.equal(canonicalJson(value), expected)
})

test('floats, out-of-range numbers and excessive nesting are refused', () => {
  let deep: Json = 1
  for (let i = 0; i < 20_000; i++) deep = [deep]
  for (const value of [1.5, 2 ** 53, -(2 ** 53), Number.NaN, Number.POSITIVE_INFINITY, deep]) {
    assert.throws(() => canonicalJson(value), CanonicalJsonError)
  }
})

test('a member named __proto__ is an ordinary member', () => {
  assert.equal(
    canonicalJson(JSON.parse('{"b":1,"__proto__":{"a":2}}') as Json),
    '{"__proto__":{"a":2},"b":1}',
  )
})
