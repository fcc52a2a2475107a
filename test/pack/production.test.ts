/**
 * A production install of the repository, as docs/setup/running.md describes it: no development dependencies, no
 * scripts of packages, and a server that starts. Needs the package registry.
 */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { cpSync, existsSync, mkdtempSync, readFileSync, realpathSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { delimiter, dirname, join } from 'node:path'
import { after, test } from 'node:test'
import { promisify } from 'node:util'
import { READY, REPOSITORY, RunningProcess } from '@latchkey/testing/run-latchkey.ts'

const COMMAND = 'npm ci --omit=dev --ignore-scripts'
const checkout = realpathSync(mkdtempSync(join(tmpdir(), 'latchkey-production-')))
after(() => rmSync(checkout, { recursive: true, force: true }))

test('npm ci without development dependencies and scripts installs a server that starts', async () => {
  const guide = readFileSync(join(REPOSITORY, 'docs/setup/running.md'), 'utf8')
  assert.ok(guide.includes(`\`${COMMAND}\``), 'the guide names the command')
  const run = promisify(execFile)
  const { stdout } = await run('git', ['ls-files', '-z', '--cached', '--others', '--exclude-standard'], {
    cwd: REPOSITORY,
  })
  for (const file of stdout.split('\0').filter((name) => existsSync(join(REPOSITORY, name)) && name !== ''))
    cpSync(join(REPOSITORY, file), join(checkout, file))
  const [program = '', ...args] = COMMAND.split(' ')
  const environment = withoutNpm(process.env)
  await run(program, args, { cwd: checkout, env: environment })
  const manifest = JSON.parse(readFileSync(join(checkout, 'package.json'), 'utf8')) as {
    readonly devDependencies: Readonly<Record<string, string>>
  }
  // Some are also dependencies of packages that the server needs.
  const kept = ['ajv', 'ajv-formats', 'yaml', '@matrix-org/olm']
  const left = Object.keys(manifest.devDependencies).filter((name) =>
    existsSync(join(checkout, 'node_modules', name)),
  )
  assert.deepEqual(
    left.filter((name) => !kept.includes(name)),
    [],
  )
  const options = { cwd: checkout, environment }
  await using server = new RunningProcess('npm', ['start', '--', '--port', '0', '--data', 'data'], options)
  const [, url = ''] = await server.printed(READY)
  assert.equal((await fetch(`${url}/_matrix/client/versions`)).status, 200)
  server.child.kill('SIGTERM')
  assert.equal((await server.ended).code, 0)
})

/** The environment of a user: without the variables that `npm run` sets, and this Node first in PATH. */
function withoutNpm(environment: NodeJS.ProcessEnv): Record<string, string> {
  const own = Object.entries(environment).filter(
    (entry): entry is [string, string] => entry[1] !== undefined && !/^(npm_|INIT_CWD$)/.test(entry[0]),
  )
  return {
    ...Object.fromEntries(own),
    PATH: `${dirname(process.execPath)}${delimiter}${environment['PATH'] ?? ''}`,
  }
}
