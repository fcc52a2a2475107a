/** A raised cost of password hashes locks no one out, and reaches each account at its next login (issue 11, D). */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import test from 'node:test'
import type { UserId } from '@latchkey/protocol'
import { startTestServer } from '@latchkey/testing/test-server.ts'

const V3 = '/_matrix/client/v3'

test('after the cost was raised, racing logins succeed and replace the hash', async () => {
  const dataDir = mkdtempSync(join(tmpdir(), 'latchkey-cost-'))
  try {
    {
      await using before = await startTestServer({ dataDir })
      await before.login('alice', 'PHONE')
    }
    await using server = await startTestServer({
      dataDir,
      passwordHashMemory: 20 * 1024 * 1024,
      passwordHashPasses: 3,
    })
    const hashOf = async (): Promise<string | undefined> =>
      (await server.context.store.accounts.find('@alice:test.example' as UserId))?.passwordHash
    const login = async (password: string): Promise<number> => {
      const body = { type: 'm.login.password', identifier: { type: 'm.id.user', user: 'alice' }, password }
      return (await server.call('POST', `${V3}/login`, { body })).status
    }
    assert.equal(await login('wrong'), 403)
    assert.match((await hashOf()) ?? '', /m=19456,t=2/)
    assert.deepEqual(
      await Promise.all(Array.from({ length: 4 }, () => login('password'))),
      [200, 200, 200, 200],
    )
    assert.match((await hashOf()) ?? '', /m=20480,t=3/)
    assert.deepEqual([await login('password'), await login('wrong')], [200, 403])
  } finally {
    rmSync(dataDir, { recursive: true, force: true })
  }
})
