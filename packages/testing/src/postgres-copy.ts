/**
 * Copies of a cluster as operators make them: of a running one by `pg_basebackup` or, if that is missing, by the steps
 * of PostgreSQL's low-level backup; of a stopped one by copying its files.
 */
import { execFile } from 'node:child_process'
import { appendFile, rm } from 'node:fs/promises'
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { promisify } from 'node:util'
import { findPostgresBinaries } from './postgres-binaries.ts'
import { PostgresCluster } from './postgres-cluster.ts'
import { makePostgresHome, type PostgresHome } from './postgres-home.ts'
import { freePort, type Settings } from './postgres-server.ts'

export type StartCopy = {
  /**
   * Start mode. `plain`: recovers as after a crash. `recovery` (recovery.signal): restores to the end of its WAL on a
   * new timeline. `standby` (standby.signal): read-only until promoted. Default: `plain`.
   */
  readonly as?: 'plain' | 'recovery' | 'standby'
  /** Loopback port; the original's may be used once the original is stopped. Default: a free one. */
  readonly port?: number
  readonly settings?: Settings
}

export type ClusterCopy = {
  readonly home: PostgresHome
  /** Starts the copy, once. Stopping the returned cluster removes the copy. */
  start(options?: StartCopy): Promise<PostgresCluster>
  /** Removes a copy that was not started. */
  discard(): Promise<void>
}

const run = promisify(execFile)

export async function copyCluster(original: PostgresCluster): Promise<ClusterCopy> {
  const home = makePostgresHome()
  try {
    const program = join(findPostgresBinaries(), 'pg_basebackup')
    if (!original.running) await copyFiles(original.home.data, home)
    else if (!existsSync(program)) await backUp(original, home)
    else {
      await run(program, ['-D', home.data, '-d', original.url, '-X', 'stream', '-c', 'fast'], {
        ...home.owner,
        cwd: home.path,
      })
    }
  } catch (error) {
    await home.remove()
    throw error
  }
  return {
    home,
    start: (options = {}) => startCopy(home, original, options),
    discard: () => home.remove(),
  }
}

async function startCopy(
  home: PostgresHome,
  original: PostgresCluster,
  { as = 'plain', port, settings = {} }: StartCopy,
): Promise<PostgresCluster> {
  const url = new URL(original.url)
  url.port = `${port ?? (await freePort())}`
  try {
    if (as !== 'plain') home.write(join(home.data, `${as}.signal`), '')
    // Recovery requires a restore_command; the copy contains all WAL there is. Connections are accepted afterwards.
    const recovery = as === 'recovery' ? { restore_command: 'false', hot_standby: 'off' } : {}
    return await PostgresCluster.open(home, url.href, { ...original.settings, ...recovery, ...settings })
  } catch (error) {
    await home.remove()
    throw error
  }
}

/** Configures a copy that was not started yet to follow a primary. */
export async function followPrimary({ home }: ClusterCopy, url: string): Promise<void> {
  const { hostname, port, username, password } = new URL(url)
  await appendFile(
    join(home.data, 'postgresql.auto.conf'),
    `primary_conninfo = 'host=${hostname} port=${port} user=${username} password=${password}'\n`,
  )
}

/** @throws {Error} when `cp` fails for another reason than a file that was removed meanwhile. */
async function copyFiles(from: string, { data }: PostgresHome): Promise<void> {
  await run('cp', ['-a', from, data]).catch((error: Error & { stderr?: string }) => {
    const complaints = (error.stderr ?? error.message).trim().split('\n')
    if (!complaints.every((line) => line.endsWith('No such file or directory'))) throw error
  })
}

/** Source: PostgreSQL's manual, "Making a Base Backup Using the Low Level API". */
async function backUp(original: PostgresCluster, home: PostgresHome): Promise<void> {
  const session = await original.connect()
  try {
    await session.query(`select pg_backup_start('copy', true)`)
    await copyFiles(original.home.data, home)
    const { rows } = await session.query<{ labelfile: string }>(`select labelfile from pg_backup_stop(false)`)
    for (const left of ['postmaster.pid', 'postmaster.opts', 'pg_wal']) {
      await rm(join(home.data, left), { recursive: true, force: true })
    }
    await run('cp', ['-a', join(original.home.data, 'pg_wal'), join(home.data, 'pg_wal')])
    home.write(join(home.data, 'backup_label'), rows[0]?.labelfile ?? '')
  } finally {
    await session.end()
  }
}
