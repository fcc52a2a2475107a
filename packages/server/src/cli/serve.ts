/** `latchkey serve`: starts one process or several workers. Shutdown: shutdown-on-signal.ts. */
import cluster from 'node:cluster'
import { Command } from 'commander'
import { type Config, DEFAULT_CONFIG, usesPostgres } from '../config/config.ts'
import { GENERAL_KEYS } from '../config/keys.ts'
import { startServer } from '../main.ts'
import { addConfigOptions, configOf } from './config-options.ts'
import { shutdownOnSignal } from './shutdown-on-signal.ts'
import { runWorker } from './worker.ts'
import { type Serving, serveWithWorkers } from './workers.ts'

const HELP = `
Prints one line on stdout when ready. SIGTERM and Ctrl-C stop it within 5 seconds, after waiting syncs are
answered; a second signal stops it immediately. With --workers N, N processes share the address and one
PostgreSQL database; a process that exits is replaced.

Examples:
  $ latchkey serve
  $ latchkey serve --port 8123 --data ./test-data --limits off
  $ latchkey serve --config /etc/latchkey.yaml --log-level info
  $ LATCHKEY_DATABASE=postgres://latchkey@db.example.org/latchkey latchkey serve
  $ LATCHKEY_DATABASE=postgres://latchkey@db.example.org/latchkey latchkey serve --workers 4
  $ latchkey serve --metrics-port 9464
  $ LATCHKEY_SERVER_NAME=example.org latchkey serve --registration closed

With npm:  npm start -- --port 8123`

export function serveCommand(): Command {
  const command = new Command('serve').description('Run the key server.').addHelpText('after', HELP)
  return addConfigOptions(command).action(() => serve(command))
}

async function serve(command: Command): Promise<void> {
  ignoreDebuggerSignal()
  if (cluster.isWorker) return runWorker()
  const { config } = configOf(command)
  const serving = await (config.workers === 1 ? serveAlone(config) : serveWithWorkers(config))
  process.stdout.write(
    `Latchkey is ready: ${serving.url}, server name ${serving.serverName}, ${placeOf(config)}${extrasOf(config, serving)}. ` +
      `Create an account: npx latchkey user add NAME${flagsFor(config)}\n`,
  )
}

/**
 * Node opens its debugger on SIGUSR1, and any program on the machine that connects to it runs code in this process. A
 * listener of our own takes its place, also when Node was started without `--disable-sigusr1`.
 */
function ignoreDebuggerSignal(): void {
  process.on('SIGUSR1', () => {})
}

async function serveAlone(config: Config): Promise<Serving> {
  const lost = Promise.withResolvers<void>()
  const server = await startServer(config, { onLost: () => lost.resolve() })
  const shutdown = shutdownOnSignal({
    async drain() {
      await server.close()
      return 'ended'
    },
  })
  void lost.promise.then(() => shutdown(1))
  return server
}

function extrasOf({ workers }: Config, { metricsUrl }: Serving): string {
  const extras = [
    ...(workers > 1 ? [`${workers} workers`] : []),
    ...(metricsUrl === undefined ? [] : [`metrics ${metricsUrl}`]),
  ]
  return extras.map((extra) => `, ${extra}`).join('')
}

function placeOf(config: Config): string {
  return usesPostgres(config)
    ? `database ${GENERAL_KEYS.database.kind.format(config.database)}`
    : `data ${config.dataDir}`
}

/** Flags that other commands need for the same database. Never includes the URL, which may contain a password. */
function flagsFor(config: Config): string {
  if (usesPostgres(config)) return ' with the same database setting'
  return config.dataDir === DEFAULT_CONFIG.dataDir ? '' : ` --data ${shellQuoted(config.dataDir)}`
}

function shellQuoted(text: string): string {
  return /^[\w./:@%+,=-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`
}
