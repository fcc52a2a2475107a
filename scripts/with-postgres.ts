/**
 * Runs a command with a temporary PostgreSQL cluster, whose URL is in LATCHKEY_TEST_POSTGRES:
 *
 *     node scripts/with-postgres.ts node --test packages/server/test/store-contract/postgres.test.ts
 *
 * If the variable is already set, the command uses that server.
 */
import { spawn } from 'node:child_process'
import { startPostgresCluster } from '@latchkey/testing/postgres-cluster.ts'

const VARIABLE = 'LATCHKEY_TEST_POSTGRES'

const [command, ...args] = process.argv.slice(2)
if (command === undefined) {
  console.error('Usage: node scripts/with-postgres.ts COMMAND [ARGUMENT...]')
  process.exitCode = 2
} else {
  const cluster = process.env[VARIABLE] ? undefined : await startPostgresCluster()
  try {
    process.exitCode = await run(command, args, cluster && { [VARIABLE]: cluster.url })
  } finally {
    await cluster?.stop()
  }
}

/** Runs the command, forwards termination signals to it, and returns its exit code. */
function run(
  program: string,
  rest: readonly string[],
  environment: Record<string, string> = {},
): Promise<number> {
  const child = spawn(program, rest, { stdio: 'inherit', env: { ...process.env, ...environment } })
  const signals = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const
  for (const signal of signals) process.on(signal, () => child.kill(signal))
  return new Promise((resolve, reject) => {
    child.once('error', reject)
    child.once('close', (code) => resolve(code ?? 1))
  })
}
