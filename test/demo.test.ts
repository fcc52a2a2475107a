/** `npm run demo` as a user sees it: it succeeds, prints each step, and leaves no files behind. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { test } from 'node:test'
import { promisify } from 'node:util'

const STORY = join(import.meta.dirname, '../demo/story.ts')

test('the demo prints all its steps in order and leaves no files behind', async (t) => {
  const directory = mkdtempSync(join(tmpdir(), 'latchkey-demo-test-'))
  t.after(() => rmSync(directory, { recursive: true, force: true }))
  const { stdout, stderr } = await promisify(execFile)(process.execPath, [STORY], {
    env: { ...process.env, TMPDIR: directory },
    timeout: 60_000,
  })
  let rest = stdout
  for (const step of [
    /Alice +@alice:demo\.example PHONE: 50 one-time keys, 1 fallback key/,
    /Bob +claims the one-time key AAAAAAAAAA0/,
    /Alice +decrypts "Lunch at noon\?"/,
    /A crowd +claims 50 times at once and gets 50 different keys/,
    /Carol +claims the fallback key (\S+ \S+)\n +Dave +claims the fallback key \1\n/,
    /Server +reports to Alice's phone: 0 one-time keys left, fallback key used/,
    /New friends +claim 40 keys; Alice's waiting sync returns at once/,
    /Alice +cannot decrypt Frank's message: DecryptionFailure/,
    /Alice +sends the same upload 3 times: 400, 400, 400/,
    /Server +One time key signed_curve25519:\S+ already exists\.\n +Old key: \S+ \.\.\.};\n +new key: \S+ \.\.\.}\n/,
    /Alice +POST \/keys\/reset {"all": true}: 39 keys withdrawn, 0 left/,
    /Alice +sends the refused upload again, unchanged: 200/,
    /Alice +decrypts "Good to have you back"/,
    /Alice +decrypts "With the key from before the reset"/,
    /Done in \d+\.\d s\.\n$/,
  ]) {
    const found = step.exec(rest)
    assert.ok(found, `${String(step)} is missing or too early in:\n${stdout}`)
    rest = rest.slice(found.index)
  }
  assert.equal(stderr, '')
  assert.ok(!stdout.includes('\u001b'), 'no colour where there is no terminal')
  assert.deepEqual(readdirSync(directory), [])
})
