/** Administration commands and a running server with the embedded database: the control socket. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync } from 'node:fs'
import { type IncomingMessage, request } from 'node:http'
import { join } from 'node:path'
import { test } from 'node:test'
import { findSocket } from '../../src/control/socket-path.ts'
import { callServer } from '../../src/control/control-client.ts'
import { version } from '../../src/version.ts'
import { type Ended, runLatchkey, startLatchkey, temporaryDirectory } from '@latchkey/testing/run-latchkey.ts'
import { startTestServer } from '@latchkey/testing/test-server.ts'

/** Servers of this process use PostgreSQL then, and processes with that store have no socket. */
const skip =
  (process.env['LATCHKEY_TEST_POSTGRES'] ?? '') !== '' && 'LATCHKEY_TEST_POSTGRES: no socket with PostgreSQL'

function add(directory: string, name: string, ...more: readonly string[]): Promise<Ended> {
  const args = ['user', 'add', name, '--password-stdin', '--data', directory, ...more]
  return runLatchkey(args, { stdin: 'correct horse' })
}

test('only the owner may connect, with any umask and mode of the directory', { skip }, async () => {
  using directory = temporaryDirectory()
  chmodSync(directory.path, 0o755)
  const umask = process.umask(0)
  try {
    await using server = await startTestServer({ dataDir: directory.path })
    assert.equal(statSync(findSocket(server.dataDir)).mode & 0o777, 0o600)
    assert.equal(process.umask(), 0)
  } finally {
    process.umask(umask)
  }
})

test('after kill -9 a command opens the database itself, and the next server has a new socket', async () => {
  using directory = temporaryDirectory()
  {
    await using server = await startLatchkey(['--data', directory.path])
    assert.equal((await add(directory.path, 'alice')).code, 0)
    server.child.kill('SIGKILL')
    await server.ended
  }
  assert.ok(existsSync(findSocket(directory.path)), 'a killed process leaves its socket')
  assert.deepEqual(await callServer(directory.path, 'user free-name', { name: 'x' }), undefined)
  const { code, stderr } = await add(directory.path, 'bob')
  assert.deepEqual([code, stderr], [0, ''])
  {
    await using server = await startLatchkey(['--data', directory.path])
    assert.match((await add(directory.path, 'alice')).stderr, /taken/)
    assert.equal((await add(directory.path, 'carol')).code, 0)
    server.child.kill('SIGTERM')
    await server.ended
  }
  assert.ok(!existsSync(findSocket(directory.path)), 'a stopped server leaves none')
})

test('a directory whose path is too long for a socket has it elsewhere, and a record of the place', async () => {
  using directory = temporaryDirectory()
  const deep = join(directory.path, 'd'.repeat(120))
  mkdirSync(deep)
  const places: string[] = []
  for (const signal of ['SIGKILL', 'SIGTERM'] as const) {
    await using server = await startLatchkey(['--data', deep])
    const socket = readFileSync(join(deep, 'control-socket'), 'utf8')
    places.push(socket)
    assert.ok(Buffer.byteLength(socket) <= 107)
    assert.equal(statSync(join(socket, '..')).mode & 0o777, 0o700)
    assert.equal(statSync(socket).mode & 0o777, 0o600)
    assert.equal((await add(deep, `user-${signal.toLowerCase()}`)).code, 0)
    server.child.kill(signal)
    await server.ended
  }
  for (const socket of places) assert.ok(!existsSync(join(socket, '..')), socket)
  assert.ok(!readdirSync(deep).includes('control-socket'))
})

test('no command creates a database without --create', async () => {
  using directory = temporaryDirectory()
  const empty = join(directory.path, 'empty')
  for (const args of [
    ['user', 'add', 'alice', '--password-stdin'],
    ['registration-token', 'create'],
  ]) {
    const { code, stdout, stderr } = await runLatchkey([...args, '--data', empty], { stdin: 'correct horse' })
    assert.deepEqual([code, stdout], [1, ''])
    assert.match(stderr, /^There is no database in .*--create\.\n$/)
    assert.ok(!existsSync(empty))
  }
  const created = await add(empty, 'alice', '--create')
  assert.deepEqual([created.code, created.stderr], [0, ''])
  assert.equal((await add(empty, 'bob')).code, 0)
})

test('the socket refuses another version, unknown commands and malformed input, and logs what changed', {
  skip,
}, async () => {
  using directory = temporaryDirectory()
  const securityLog = join(directory.path, 'security.log')
  await using server = await startTestServer({ dataDir: directory.path, securityLog })
  const send = async (
    path: string,
    body: string,
    headers: object,
  ): Promise<{ status?: number; text: string }> => {
    const call = request({
      socketPath: findSocket(server.dataDir),
      path,
      method: 'POST',
      headers: { ...headers },
    })
    call.end(body)
    const [response] = (await once(call, 'response')) as [IncomingMessage]
    let text = ''
    for await (const chunk of response) text += String(chunk)
    return { ...(response.statusCode && { status: response.statusCode }), text }
  }
  const other = await send('/user%20add', '{}', { 'x-latchkey-version': '0.0.1' })
  assert.equal(other.status, 400)
  assert.equal((await send('/user%ZZ', '{}', { 'x-latchkey-version': version() })).status, 400)
  assert.match(other.text, /running server is Latchkey \d.*this command is 0\.0\.1/)
  const refused = async (command: string, input: object): Promise<string> => {
    const error = await callServer(server.dataDir, command, input).catch((failure: unknown) => failure)
    assert.ok(error instanceof Error)
    return error.message
  }
  assert.match(await refused('user explode', {}), /no administration command "user explode"/)
  assert.match(await refused('constructor', {}), /no administration command/)
  assert.match(await refused('user add', { name: 'alice' }), /user add: .*password/)
  assert.match(await refused('user add', { name: 'alice', password: 'x'.repeat(70_000) }), /too large/)
  assert.equal(readFileSync(securityLog, 'utf8'), '')
  await callServer(server.dataDir, 'user add', { name: 'alice', password: 'correct horse' })
  const [line, ...more] = readFileSync(securityLog, 'utf8').trimEnd().split('\n')
  assert.deepEqual(more, [])
  const { event, command, target } = JSON.parse(line ?? '')
  assert.deepEqual([event, command, target], ['admin_command', 'user add', '@alice:test.example'])
  assert.ok(!line?.includes('correct horse'))
})

test('numbers that no database keeps exactly are refused, and the list stays readable', {
  skip,
}, async () => {
  await using server = await startTestServer()
  for (const limit of ['usesAllowed', 'expiresTs']) {
    for (const value of [2 ** 53, 1e300])
      await assert.rejects(
        callServer(server.dataDir, 'registration-token create', { [limit]: value }),
        /must be (<=|integer)/,
        `${limit} ${value}`,
      )
    const most = { [limit]: Number.MAX_SAFE_INTEGER }
    assert.ok(await callServer(server.dataDir, 'registration-token create', most))
  }
  const page = { after: '', limit: 10 }
  const listed = await callServer(server.dataDir, 'registration-token list', page)
  assert.ok(listed)
  assert.equal((listed.output as { tokens: unknown[] }).tokens.length, 2)
})
