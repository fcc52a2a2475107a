/** The command as its users run it: real processes on free ports, ended by signals. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { chmodSync, existsSync, mkdirSync, readdirSync, statSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { join } from 'node:path'
import { test } from 'node:test'
import type { AnyJson } from '@latchkey/testing/test-server.ts'
import {
  LATCHKEY,
  READY,
  REPOSITORY,
  RunningProcess,
  runLatchkey,
  startLatchkey,
  temporaryDirectory,
} from '@latchkey/testing/run-latchkey.ts'

const CLIENT = '/_matrix/client/v3'

async function post(url: string, body: unknown): Promise<{ status: number; body: AnyJson }> {
  const response = await fetch(url, { method: 'POST', body: JSON.stringify(body) })
  return { status: response.status, body: await response.json() }
}

function logIn(url: string, user: string, password: string): Promise<{ status: number; body: AnyJson }> {
  const identifier = { type: 'm.id.user', user }
  return post(url + CLIENT + '/login', { type: 'm.login.password', identifier, password })
}

/** Registers, and opens a sync that waits. Resolves when the server has received the request. */
async function openLongPoll(url: string): Promise<{ readonly answer: Promise<number> }> {
  const registered = await post(url + CLIENT + '/register', {
    username: 'poller',
    password: 'long enough',
    auth: { type: 'm.login.dummy' },
  })
  assert.equal(registered.status, 200)
  const token = registered.body.access_token
  const first = (await (await fetch(`${url}${CLIENT}/sync?access_token=${token}`)).json()) as AnyJson
  const { hostname, port } = new URL(url)
  const socket = connect(Number(port), hostname)
  const target = `${CLIENT}/sync?timeout=60000&since=${first.next_batch}&access_token=${token}`
  // Two requests in one write: the answer to the first shows that the server has read the second, which waits.
  const request = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: ${hostname}\r\n\r\n`
  socket.write(request('/_matrix/client/versions') + request(target))
  let received = ''
  socket.on('data', (chunk) => (received += String(chunk)))
  await once(socket, 'data')
  const statuses = (): number[] =>
    [...received.matchAll(/HTTP\/1\.1 (\d+)/g)].map(([, status]) => Number(status))
  assert.deepEqual(statuses(), [200])
  return { answer: once(socket, 'close').then(() => statuses()[1] ?? 0) }
}

test('serve prints one line: address, server name, data directory, and how to create an account', async () => {
  using directory = temporaryDirectory()
  await using server = await startLatchkey(['--data', directory.path, '--server-name', 'example.org'])
  assert.equal((await fetch(`${server.url}/_matrix/client/versions`)).status, 200)
  server.child.kill('SIGTERM')
  const { code, stdout, stderr } = await server.ended
  assert.equal(
    stdout,
    `Latchkey is ready: ${server.url}, server name example.org, data ${directory.path}. ` +
      `Create an account: npx latchkey user add NAME --data ${directory.path}\n`,
  )
  assert.equal(stderr, '')
  assert.equal(code, 0)
})

test('npm start passes its flags on; SIGTERM to npm answers a long-poll and ends everything within 5 s', async () => {
  using directory = temporaryDirectory()
  const workplace = join(directory.path, 'workplace')
  mkdirSync(workplace)
  const args = [
    '--prefix',
    REPOSITORY,
    'start',
    '--',
    '--port',
    '0',
    '--data',
    './data',
    '--registration',
    'open',
  ]
  await using npm = new RunningProcess('npm', args, { cwd: workplace })
  const [, url = ''] = await npm.printed(READY)
  assert.ok(existsSync(join(workplace, 'data', 'latchkey.db')), '--data is relative to where npm was run')
  const poll = await openLongPoll(url)
  const startedMs = performance.now()
  npm.child.kill('SIGTERM')
  assert.equal(await poll.answer, 200)
  await npm.ended
  assert.ok(performance.now() - startedMs < 5_000)
  await assert.rejects(fetch(`${url}/_matrix/client/versions`), 'no process listens')
  const again = await runLatchkey(['database', 'check', '--data', join(workplace, 'data')])
  assert.equal(again.code, 0)
})

test('a Ctrl-C that reaches the server twice, from the terminal and from npm, still drains', async () => {
  using directory = temporaryDirectory()
  await using server = await startLatchkey(['--data', directory.path, '--registration', 'open'])
  const poll = await openLongPoll(server.url)
  server.child.kill('SIGINT')
  server.child.kill('SIGINT')
  assert.equal(await poll.answer, 200)
  assert.equal((await server.ended).code, 0)
})

test('a request that never ends does not stop the server from exiting within 5 s', async () => {
  using directory = temporaryDirectory()
  await using server = await startLatchkey(['--data', directory.path])
  const { hostname, port } = new URL(server.url)
  const socket = connect(Number(port), hostname)
  socket.on('error', () => {})
  const login = `${CLIENT}/login HTTP/1.1\r\nHost: ${hostname}\r\n`
  socket.write(`GET ${login}\r\nPOST ${login}Content-Length: 100\r\n\r\n{`)
  await once(socket, 'data')
  const startedMs = performance.now()
  server.child.kill('SIGTERM')
  assert.equal((await server.ended).code, 0)
  assert.ok(performance.now() - startedMs < 5_000)
})

test('a second process on the same data directory or port exits with a clear message', async () => {
  using directory = temporaryDirectory()
  await using server = await startLatchkey(['--data', directory.path])
  const sameData = await runLatchkey(['serve', '--port', '0', '--data', directory.path])
  assert.deepEqual(sameData, {
    code: 1,
    signal: null,
    stdout: '',
    stderr: `Another Latchkey process is using ${directory.path}. Stop it, or give this one another --data directory. The lock is released when that process ends; there is no file to delete.\n`,
  })
  const { port } = new URL(server.url)
  const samePort = await runLatchkey(['serve', '--port', port, '--data', join(directory.path, 'other')])
  assert.equal(samePort.code, 1)
  assert.equal(
    samePort.stderr,
    `127.0.0.1:${port} is already in use by another program. Stop it, or choose another --port.\n`,
  )
})

test('an account added while the server runs can log in at once', async () => {
  using directory = temporaryDirectory()
  await using server = await startLatchkey(['--data', directory.path, '--server-name', 'example.org'])
  const add = (name: string, password: string): ReturnType<typeof runLatchkey> =>
    runLatchkey(['user', 'add', name, '--password-stdin', '--data', directory.path], { stdin: password })
  const added = await add('alice', 'correct horse\n')
  assert.deepEqual(added, {
    code: 0,
    signal: null,
    stdout: `Created the account @alice:example.org in ${directory.path}.\n`,
    stderr: '',
  })
  assert.equal((await logIn(server.url, 'alice', 'correct horse')).body.user_id, '@alice:example.org')
  assert.equal((await logIn(server.url, 'alice', 'correct horse\n')).status, 403)
  assert.equal((await add('@bob:example.org', 'correct horse')).code, 0)

  const problem = async (name: string, password: string): Promise<string> => {
    const { code, stdout, stderr } = await add(name, password)
    assert.deepEqual([code, stdout], [1, ''])
    assert.equal(stderr.trimEnd().split('\n').length, 1, stderr)
    return stderr
  }
  assert.match(await problem('alice', 'correct horse'), /taken/)
  assert.match(await problem('@carol:elsewhere.org', 'correct horse'), /@name:example\.org/)
  assert.match(await problem('a b', 'correct horse'), /user name/)
  assert.match(await problem('carol', 'short'), /password/i)
  assert.match(await problem('carol', ''), /expected a password/)
  assert.match(await problem('carol', 'one line\nanother'), /more than one line/)
})

test('SIGUSR1 does not open the debugger', async () => {
  using directory = temporaryDirectory()
  await using server = await startLatchkey(['--data', directory.path])
  server.child.kill('SIGUSR1')
  assert.equal((await fetch(`${server.url}/_matrix/client/versions`)).status, 200)
  server.child.kill('SIGTERM')
  const { code, stderr } = await server.ended
  assert.deepEqual([code, stderr], [0, ''])
})

test('user add without a terminal asks for --password-stdin', async () => {
  using directory = temporaryDirectory()
  const { code, stderr } = await runLatchkey(['user', 'add', 'alice', '--create', '--data', directory.path])
  assert.equal(code, 1)
  assert.match(stderr, /use --password-stdin/)
})

test('only the owner can read the database and the lock, even in a directory that already existed', async () => {
  using directory = temporaryDirectory()
  chmodSync(directory.path, 0o755)
  await using server = await startLatchkey(['--data', directory.path])
  await post(`${server.url}${CLIENT}/login`, {})
  const names = readdirSync(directory.path)
  for (const name of ['latchkey.db', 'latchkey.db-wal', 'lock.db']) assert.ok(names.includes(name), name)
  for (const name of names) assert.equal(statSync(join(directory.path, name)).mode & 0o777, 0o600, name)
})

test('a data directory that cannot be created, read or written is reported with its path', async () => {
  using directory = temporaryDirectory()
  const file = join(directory.path, 'file')
  writeFileSync(file, '')
  for (const [data, said] of [
    ['/proc/latchkey-test', /^The directory \/proc\/latchkey-test cannot be created/],
    ['/proc/latchkey-test/deeper', /^The directory \/proc\/latchkey-test cannot be created/],
    [file, /file is not a directory/],
    [join(file, 'deeper'), /not a directory/],
  ] as const) {
    const { code, stdout, stderr } = await runLatchkey(['serve', '--port', '0', '--data', data])
    assert.deepEqual([code, stdout], [1, ''], data)
    assert.match(stderr, said)
    assert.equal(stderr.trimEnd().split('\n').length, 1, stderr)
  }
  const deep = join(directory.path, 'a', 'b', 'c')
  await using server = await startLatchkey(['--data', deep])
  assert.equal(statSync(join(directory.path, 'a')).mode & 0o777, 0o700)
  assert.equal((await fetch(`${server.url}/_matrix/client/versions`)).status, 200)
})

test('a data directory without read permission is reported as a permission error', async (t) => {
  using directory = temporaryDirectory()
  const data = join(directory.path, 'data')
  mkdirSync(data, { mode: 0o300 })
  // root has every permission, so the command runs without the capabilities that grant them.
  const isRoot = process.getuid?.() === 0
  if (isRoot && !existsSync('/usr/bin/setpriv')) {
    t.skip('run by root without setpriv')
    return
  }
  const args = [LATCHKEY, 'serve', '--port', '0', '--data', data]
  const withoutOverride = ['--bounding-set', '-dac_override,-dac_read_search', process.execPath]
  const { code, stderr } = isRoot
    ? await new RunningProcess('/usr/bin/setpriv', [...withoutOverride, ...args]).ended
    : await new RunningProcess(process.execPath, args).ended
  assert.equal(code, 1)
  assert.equal(
    stderr,
    `No permission for ${data}. Give this user access, or choose another --data directory.\n`,
  )
})

test('a registration token creates as many accounts as it states', async () => {
  using directory = temporaryDirectory()
  await using server = await startLatchkey(['--data', directory.path])
  const made = await runLatchkey([
    'registration-token',
    'create',
    '--uses',
    '1',
    '--expires-in',
    '7d',
    '--data',
    directory.path,
  ])
  assert.match(made.stdout, /^[\w-]{20,}\n$/)
  const register = (username: string): Promise<{ status: number; body: AnyJson }> =>
    post(server.url + CLIENT + '/register', {
      username,
      password: 'long enough',
      auth: { type: 'm.login.registration_token', token: made.stdout.trim() },
    })
  assert.equal((await register('first')).status, 200)
  assert.equal((await register('second')).status, 401)
  const wrong = await runLatchkey([
    'registration-token',
    'create',
    '--uses',
    'many',
    '--data',
    directory.path,
  ])
  assert.deepEqual(
    [wrong.code, wrong.stderr],
    [1, '--uses must be a whole number from 1 to 1000000, not "many".\n'],
  )
})

test('the server name is fixed at the first start', async () => {
  using directory = temporaryDirectory()
  const data = ['--data', directory.path]
  const added = await runLatchkey(
    ['user', 'add', 'alice', '--password-stdin', '--create', '--server-name', 'a.org', ...data],
    {
      stdin: 'correct horse',
    },
  )
  assert.equal(added.stdout, `Created the account @alice:a.org in ${directory.path}.\n`)
  const other = await runLatchkey(['serve', '--port', '0', '--server-name', 'b.org', ...data])
  assert.equal(other.code, 1)
  assert.match(other.stderr, /belongs to the server name a\.org/)
  await using server = await startLatchkey(data)
  assert.equal((await logIn(server.url, 'alice', 'correct horse')).status, 200)
})

test('config check prints the effective settings, or every problem on its own line', async () => {
  using directory = temporaryDirectory()
  writeFileSync(join(directory.path, 'latchkey.yaml'), 'limits:\n  keys_per_pool: 100\n')
  const good = await runLatchkey(['config', 'check', '--config', 'latchkey.yaml', '--limits', 'off'], {
    cwd: directory.path,
    environment: { LATCHKEY_PORT: '8123' },
  })
  assert.equal(good.code, 0)
  assert.match(good.stdout, /^port: 8123 {2}# from LATCHKEY_PORT$/m)
  assert.match(good.stdout, /^ {2}keys_per_pool: 100 {2}# from latchkey\.yaml:2$/m)
  assert.match(good.stdout, /^ {2}enabled: off {2}# from --limits$/m)
  const bad = await runLatchkey(['config', 'check', '--port', 'x'], { environment: { LATCHKEY_DATE: 'x' } })
  assert.deepEqual([bad.code, bad.stdout], [1, ''])
  assert.equal(
    bad.stderr,
    'Configuration: "LATCHKEY_DATE" (from the environment) is an unknown variable. Did you mean LATCHKEY_DATA?\n' +
      'Configuration: port (from --port) must be a whole number from 0 to 65535, not "x".\n',
  )
})

test('database check distinguishes an intact, a damaged and a missing database', async () => {
  using directory = temporaryDirectory()
  const check = (): ReturnType<typeof runLatchkey> =>
    runLatchkey(['database', 'check', '--data', directory.path])
  const none = await check()
  assert.equal(none.code, 1)
  assert.match(none.stderr, /There is no database/)
  {
    await using server = await startLatchkey(['--data', directory.path])
    const beside = await check()
    assert.deepEqual([beside.code, beside.stderr], [0, ''])
    assert.match(beside.stdout, /is sound/)
    server.child.kill('SIGTERM')
    await server.ended
  }
  writeFileSync(join(directory.path, 'latchkey.db'), 'x'.repeat(8192))
  const damaged = await check()
  assert.equal(damaged.code, 1)
  assert.match(damaged.stdout, /is damaged/)
  const serve = await runLatchkey(['serve', '--port', '0', '--data', directory.path])
  assert.equal(serve.code, 1)
  assert.equal(serve.stderr.trimEnd().split('\n').length, 1, serve.stderr)
})

test('help of every command has examples; a wrong flag or command is reported with a suggestion', async () => {
  const commands = [
    [],
    ['serve'],
    ['user', 'add'],
    ['user', 'lock'],
    ['device', 'delete'],
    ['registration-token', 'create'],
    ['config', 'check'],
    ['database', 'check'],
    ['backup'],
    ['restore'],
    ['migrate'],
  ]
  for (const command of commands) {
    const { code, stdout } = await runLatchkey([...command, '--help'])
    assert.equal(code, 0)
    assert.match(stdout, /Examples:\n {2}\$ latchkey /)
  }
  assert.match((await runLatchkey(['--version'])).stdout, /^\d+\.\d+\.\d+\n$/)
  const wrong = await runLatchkey(['serve', '--prot', '80'])
  assert.equal(wrong.code, 1)
  assert.match(wrong.stderr, /--port/)
})

test('on an older Node the command runs with the Node that npm ci installed', async (t) => {
  const older = '/usr/bin/node'
  const versionOf = async (): Promise<number> => {
    const { stdout } = await new RunningProcess(older, ['--version']).ended
    return Number(/^v(\d+)/.exec(stdout)?.[1])
  }
  if (!existsSync(older) || (await versionOf()) >= 24) {
    t.skip('no older Node at /usr/bin/node')
    return
  }
  using directory = temporaryDirectory()
  await using server = new RunningProcess(older, [LATCHKEY, 'serve', '--port', '0', '--data', directory.path])
  const [, url = ''] = await server.printed(READY)
  assert.equal((await fetch(`${url}/_matrix/client/versions`)).status, 200)
  server.child.kill('SIGTERM')
  assert.equal((await server.ended).code, 0)
  await assert.rejects(fetch(`${url}/_matrix/client/versions`), 'the server ended with its launcher')
})
