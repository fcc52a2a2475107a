/**
 * The environment of a process under test: no setting of the person who runs the tests, and no file in their home
 * directory. The witness is in the data directory, where tests find it, unless the arguments name another place.
 */
import { tmpdir } from 'node:os'
import { join } from 'node:path'

export function environmentFor(args: readonly string[]): NodeJS.ProcessEnv {
  const inherited = Object.entries(process.env).filter(
    ([name]) => !name.startsWith('LATCHKEY_') && name !== 'STATE_DIRECTORY',
  )
  const dataDir = args.includes('--data') ? args[args.indexOf('--data') + 1] : undefined
  const hasPlace = args.includes('--fence-dir') || args.includes('--config') || args.includes('config')
  return {
    ...Object.fromEntries(inherited),
    XDG_STATE_HOME: join(tmpdir(), 'latchkey-test-state'),
    ...(dataDir !== undefined && !hasPlace && { LATCHKEY_FENCE_DIR: dataDir }),
  }
}
