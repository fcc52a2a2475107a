import assert from 'node:assert/strict'
import test from 'node:test'
import { DEFAULT_COST } from './password-hash.ts'
import { Passwords } from './passwords.ts'

const CHEAP = { memory: 64, passes: 1 }
const DEAR = { memory: 128, passes: 3 }

test('a hash is checked with the parameters that it was made with, lower or higher than the present ones', async () => {
  const hashes = await Promise.all([CHEAP, DEAR].map((cost) => new Passwords(cost).hash('password')))
  for (const stored of hashes) {
    for (const cost of [CHEAP, DEAR]) {
      const passwords = new Passwords(cost)
      assert.equal(await passwords.verify('password', stored), true)
      assert.equal(await passwords.verify('Password', stored), false)
    }
  }
  const [cheap = '', dear = ''] = hashes
  assert.deepEqual(
    [new Passwords(DEAR).isOutdated(cheap), new Passwords(DEAR).isOutdated(dear)],
    [true, false],
  )
  assert.equal(new Passwords(CHEAP).isOutdated(dear), false)
})

test('a hash of earlier versions is valid', async () => {
  const stored = await new Passwords(DEFAULT_COST).hash('password')
  assert.match(stored, /^\$argon2id\$v=19\$m=19456,t=2,p=1\$[^$]{22}\$[^$]{43}$/)
})

test('no password belongs to a hash with parameters out of bounds', async () => {
  const passwords = new Passwords(CHEAP)
  const stored = await passwords.hash('password')
  for (const [from, to] of [
    ['m=64', 'm=9999999'],
    ['m=64', 'm=0'],
    ['t=1', 't=999'],
    ['t=1', 't=0'],
    ['p=1', 'p=64'],
    ['argon2id', 'argon2i'],
  ] as const)
    assert.equal(await passwords.verify('password', stored.replace(from, to)), false, to)
  assert.equal(await passwords.verify('password', ''), false)
  assert.equal(await passwords.verify('password', undefined), false)
})

test('the known clients of one account leave room for those of others', async () => {
  const passwords = new Passwords(CHEAP)
  const stored = await passwords.hash('password')
  const finished: string[] = []
  const verify = (account: string): Promise<unknown> =>
    passwords.verify('password', stored, account).then((right) => finished.push(`${account} ${right}`))
  const flood = Promise.allSettled(Array.from({ length: 1000 }, () => verify('mallory')))
  await verify('alice')
  assert.ok(finished.indexOf('alice true') < 10, `after ${finished.indexOf('alice true')}`)
  const refused = (await flood).filter(({ status }) => status === 'rejected')
  // Two run and 200 wait.
  assert.equal(refused.length, 798)
})
