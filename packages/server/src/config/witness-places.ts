/**
 * The directory of the witness (issue 11, A3), in this order: `fence_dir`; where a witness of the database lies
 * already; the directory that systemd gives the service, if that is not the data directory; the XDG state directory. In
 * a container, whose own files end with it, and without a home directory: the data directory.
 */
import { accessSync, constants, existsSync, statSync } from 'node:fs'
import { dirname, isAbsolute, join, relative, resolve } from 'node:path'

export type WitnessPlaces = {
  /** Where a new witness is created. */
  readonly directory: string
  /** Where a witness of the database may lie already, in order. Empty if the operator named the directory. */
  readonly searched: readonly string[]
  /** Whether the default is the data directory, which people back up and restore. */
  readonly isWithData: boolean
}

type Environment = Readonly<Record<string, string | undefined>>

export function witnessPlaces(
  { fenceDir, dataDir }: { readonly fenceDir?: string; readonly dataDir: string },
  environment: Environment,
  inContainer = isContainer(environment),
): WitnessPlaces {
  if (fenceDir !== undefined) return { directory: fenceDir, searched: [], isWithData: false }
  const isOutside = (directory: string): boolean => !isWithin(directory, dataDir)
  const service = (environment['STATE_DIRECTORY'] ?? '')
    .split(':')
    .find((path) => isAbsolute(path) && isOutside(path))
  const state = stateHome(environment)
  const home = state !== undefined && isOutside(state) ? state : undefined
  const directory = service ?? (inContainer ? undefined : home) ?? dataDir
  const searched = [service, home, dataDir].filter((place) => place !== undefined)
  return { directory, searched, isWithData: directory === dataDir }
}

/** The XDG state directory of Latchkey (XDG Base Directory Specification 0.8), if this user can write there. */
function stateHome(environment: Environment): string | undefined {
  const { XDG_STATE_HOME: given = '', HOME: home = '' } = environment
  const isHome = isAbsolute(home) && statSync(home, { throwIfNoEntry: false })?.isDirectory() === true
  const base = isAbsolute(given) ? given : isHome ? join(home, '.local/state') : undefined
  return base !== undefined && isWritable(base) ? join(base, 'latchkey') : undefined
}

/** Whether a directory can be written to, or created. */
function isWritable(directory: string): boolean {
  let existing = directory
  while (!existsSync(existing)) existing = dirname(existing)
  try {
    accessSync(existing, constants.W_OK | constants.X_OK)
    return true
  } catch {
    return false
  }
}

function isWithin(path: string, directory: string): boolean {
  const way = relative(resolve(directory), resolve(path))
  return way === '' || (!way.startsWith('..') && !isAbsolute(way))
}

function isContainer({ container, KUBERNETES_SERVICE_HOST: pod }: Environment): boolean {
  return (
    (container ?? '') !== '' ||
    (pod ?? '') !== '' ||
    existsSync('/.dockerenv') ||
    existsSync('/run/.containerenv')
  )
}
