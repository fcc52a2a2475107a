/** Guesses at the password of one account from all of a /48, while its owner logs in (issue 11, C5). */
import assert from 'node:assert/strict'
import { test } from 'node:test'
import { ok } from '@latchkey/testing/test-client.ts'
import { countsOf, eventsOf, register, start, tryLogin } from './support.ts'

const HOME = '198.51.100.1'
const CONNECTIONS = 8
const GUESSES = 160
/** Four times the burst of one address and account. */
const CHECKED = 40

test('a victim logs in from a known network during a flood of guesses from one /48', async () => {
  await using server = await start()
  await register(server, 'victim', HOME)
  const guesses: { readonly status: number }[] = []
  let next = 0
  const flood = async (): Promise<void> => {
    while (next < GUESSES) {
      const address = `2001:db8:5:${(next++ * 256).toString(16)}::1`
      guesses.push(await tryLogin(server, 'victim', address, { password: 'guess' }))
    }
  }
  const attackers = Promise.all(Array.from({ length: CONNECTIONS }, flood))
  for (let n = 0; n < 5; n++) ok(await tryLogin(server, 'victim', HOME))
  await attackers
  assert.deepEqual(countsOf(guesses), { 403: CHECKED, 429: GUESSES - CHECKED })
  assert.equal(await eventsOf(server, 'login_failed'), CHECKED)
  assert.equal(await eventsOf(server, 'request_limited'), GUESSES - CHECKED)
  ok(await tryLogin(server, 'victim', HOME))
})
