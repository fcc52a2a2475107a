/** libolm for tests: initialised once, without its listeners on the process (they exit with code 7). */
import { createRequire } from 'node:module'
import type Olm from '@matrix-org/olm'

const EVENTS = ['uncaughtException', 'unhandledRejection'] as const

let loading: Promise<typeof Olm> | undefined

export function loadOlm(): Promise<typeof Olm> {
  return (loading ??= load())
}

async function load(): Promise<typeof Olm> {
  const before = new Map(EVENTS.map((event) => [event, new Set(process.listeners(event as never))]))
  const olm = createRequire(import.meta.url)('@matrix-org/olm') as typeof Olm
  await olm.init()
  for (const event of EVENTS) {
    for (const listener of process.listeners(event as never)) {
      if (before.get(event)?.has(listener) !== true) process.removeListener(event, listener)
    }
  }
  return olm
}
