/**
 * The commands of docs/guides/operating.md, in their order: the `sh` blocks on one embedded installation, which runs or
 * not as the first line of the block says, and those for PostgreSQL on a schema of their own.
 */
import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { REPOSITORY, runLatchkey, startLatchkey, temporaryDirectory } from '@latchkey/testing/run-latchkey.ts'
import { openTestSchema, skipWithoutPostgres } from '@latchkey/testing/test-schema.ts'
import { clientOf } from '@latchkey/testing/test-server.ts'

const guide = readFileSync(join(REPOSITORY, 'docs/guides/operating.md'), 'utf8')

type Block = { readonly state: string; readonly commands: readonly string[] }

const blocks = [...guide.matchAll(/^ *```sh\n([^]*?)^ *```$/gm)].map(([, text = '']): Block => {
  const [state = '', ...commands] = text
    .trim()
    .split('\n')
    .map((line) => line.trim())
  return { state, commands }
})

async function runAll(block: Block, directory: string, environment: Record<string, string>): Promise<void> {
  for (const command of block.commands) {
    assert.match(command, /^latchkey /)
    const args = command
      .replace(' < password.txt', '')
      .replace('/backup/', `${directory}/`)
      .split(' ')
      .slice(1)
    const ended = await runLatchkey(args, { environment, cwd: directory, stdin: 'a new password\n' })
    assert.equal(ended.code, 0, `${command}\n${ended.stdout}${ended.stderr}`)
  }
}

test('each example says in which state of the server it runs', () => {
  const states = new Set(blocks.map(({ state }) => state))
  assert.deepEqual([...states].sort(), [
    '# PostgreSQL',
    '# The server is running.',
    '# The server is stopped.',
  ])
})

test('the examples of the guide work in their order on an embedded installation', async () => {
  using home = temporaryDirectory()
  const data = join(home.path, 'data')
  mkdirSync(data)
  const environment = { LATCHKEY_DATA: data, LATCHKEY_REGISTRATION: 'open' }
  {
    await using server = await startLatchkey([], { environment })
    await clientOf(server.url).login('alice', 'PHONE')
    server.child.kill('SIGTERM')
    await server.ended
  }
  for (const block of blocks.filter(({ state }) => state !== '# PostgreSQL')) {
    if (block.state === '# The server is stopped.') {
      await runAll(block, home.path, environment)
    } else {
      await using server = await startLatchkey([], { environment })
      await runAll(block, home.path, environment)
      server.child.kill('SIGTERM')
      await server.ended
    }
  }
})

test('the examples for PostgreSQL work', {
  skip: skipWithoutPostgres,
}, async () => {
  using home = temporaryDirectory()
  const schema = await openTestSchema(randomBytes(8).toString('hex'))
  assert.ok(schema)
  try {
    const environment = { LATCHKEY_DATABASE: schema.database, LATCHKEY_FENCE_DIR: home.path }
    {
      await using server = await startLatchkey([], { environment })
      server.child.kill('SIGTERM')
      await server.ended
    }
    for (const block of blocks.filter(({ state }) => state === '# PostgreSQL')) {
      await runAll(block, home.path, environment)
    }
  } finally {
    await schema.drop()
  }
})
