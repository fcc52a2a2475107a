/** `npm start` uses the system's Node if it is new enough (scripts/start.sh), the installed one otherwise. */
import assert from 'node:assert/strict'
import { mkdirSync, readFileSync, symlinkSync, writeFileSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { test } from 'node:test'
import {
  REPOSITORY,
  RunningProcess,
  temporaryDirectory,
  type RunOptions,
} from '@latchkey/testing/run-latchkey.ts'

/** A program `node` that prints its name and its arguments, or the version. */
function fakeNode(directory: string, name: string, version: string): void {
  mkdirSync(directory, { recursive: true })
  const script = `#!/bin/sh\nif [ "$1" = --version ]; then echo ${version}; else echo "${name}: $*"; fi\n`
  writeFileSync(join(directory, 'node'), script, { mode: 0o755 })
}

/** Runs the script as npm does, with the installed Node first in PATH. */
async function usedNode(system: string | undefined): Promise<string> {
  using directory = temporaryDirectory()
  const installed = join(directory.path, 'node_modules', '.bin')
  fakeNode(installed, 'installed', 'v24.21.0')
  const bin = join(directory.path, 'a directory', 'bin')
  if (system !== undefined) fakeNode(bin, 'system', system)
  // The tools without their `node`, which may be one of any version.
  const tools = join(directory.path, 'tools')
  mkdirSync(tools)
  for (const tool of ['sh', 'sed', 'dirname']) symlinkSync(join('/usr/bin', tool), join(tools, tool))
  const PATH = [installed, bin, tools].join(delimiter)
  const options: RunOptions = { environment: { PATH } }
  const script = join(REPOSITORY, 'scripts', 'start.sh')
  const { code, stdout, stderr } = await new RunningProcess('/bin/sh', [script, '--port', '0'], options).ended
  assert.deepEqual([code, stderr], [0, ''])
  assert.match(stdout, /latchkey\.mjs serve --port 0\n$/)
  return stdout.split(':')[0] ?? ''
}

test("npm start uses the system's Node if it is as new as the manifest says, and the installed one otherwise", async () => {
  const manifest = readFileSync(join(REPOSITORY, 'packages/server/package.json'), 'utf8')
  const [, major = '', minor = ''] = /"node": ">=(\d+)\.(\d+)"/.exec(manifest) ?? []
  assert.equal(await usedNode(undefined), 'installed')
  for (const [version, expected] of [
    [`v${major}.${minor}.0`, 'system'],
    [`v${Number(major) + 2}.0.0`, 'system'],
    [`v${major}.${Number(minor) - 1}.9`, 'installed'],
    [`v${Number(major) - 2}.99.0`, 'installed'],
    ['v9.99.0', 'installed'],
    ['nonsense', 'installed'],
    ["''", 'installed'],
  ] as const)
    assert.equal(await usedNode(version), expected, version)
})
