/**
 * `latchkey serve`: start, one line when ready, and an orderly end. The first signal drains (waiting syncs are answered,
 * commits finish); a second one, or the deadline, ends at once. What was acknowledged is durable either way.
 */
import { Command } from 'commander'
import { type Config, DEFAULT_CONFIG, usesPostgres } from '../config/config.ts'
import { GENERAL_KEYS } from '../config/keys.ts'
import { type Server, startServer } from '../main.ts'
import { addConfigOptions, configOf } from './config-options.ts'

/** Below the 5 seconds that are promised, so that the process is gone by then. */
const DRAIN_DEADLINE_MS = 4_500
/** Ctrl-C reaches the whole process group, and npm passes it on too: within this time it is one and the same. */
const SAME_SIGNAL_MS = 500
const SIGNALS = ['SIGTERM', 'SIGINT', 'SIGHUP'] as const

const HELP = `
Prints one line on stdout when ready. SIGTERM and Ctrl-C end it within 5 seconds, with the syncs that
wait answered; a second signal ends it at once.

Examples:
  $ latchkey serve
  $ latchkey serve --port 8123 --data ./test-data --limits off
  $ latchkey serve --config /etc/latchkey.yaml --log-level info
  $ LATCHKEY_DATABASE=postgres://latchkey@db.example.org/latchkey latchkey serve
  $ LATCHKEY_SERVER_NAME=example.org latchkey serve --registration closed

Behind npm:  npm start -- --port 8123`

export function serveCommand(): Command {
  const command = new Command('serve').description('Run the key server.').addHelpText('after', HELP)
  return addConfigOptions(command).action(() => serve(command))
}

async function serve(command: Command): Promise<void> {
  const { config } = configOf(command)
  const server = await startServer(config)
  endOnSignal(server)
  process.stdout.write(
    `Latchkey is ready: ${server.url}, server name ${server.serverName}, ${placeOf(config)}. ` +
      `Make an account: npx latchkey user add NAME${flagsFor(config)}\n`,
  )
}

function placeOf(config: Config): string {
  return usesPostgres(config)
    ? `database ${GENERAL_KEYS.database.kind.format(config.database)}`
    : `data ${config.dataDir}`
}

/** What another command needs to find the same database. Never the URL with its password. */
function flagsFor(config: Config): string {
  if (usesPostgres(config)) return ' with the same database setting'
  return config.dataDir === DEFAULT_CONFIG.dataDir ? '' : ` --data ${shellQuoted(config.dataDir)}`
}

function endOnSignal(server: Server): void {
  let firstAtMs: number | undefined
  const end = (signal: string): void => {
    if (firstAtMs === undefined) {
      firstAtMs = performance.now()
      void drain(server)
    } else if (performance.now() - firstAtMs > SAME_SIGNAL_MS) {
      giveUp(`Ended at once by a second ${signal}.`)
    }
  }
  for (const signal of SIGNALS) process.on(signal, () => end(signal))
}

async function drain(server: Server): Promise<void> {
  setTimeout(() => giveUp('Some requests did not end in time and were cut.'), DRAIN_DEADLINE_MS)
  await server.close()
  process.exit(0)
}

function giveUp(reason: string): never {
  process.stderr.write(`${reason} What was acknowledged is stored.\n`)
  process.exit(1)
}

function shellQuoted(text: string): string {
  return /^[\w./:@%+,=-]+$/.test(text) ? text : `'${text.replaceAll("'", String.raw`'\''`)}'`
}
