/**
 * Loads libolm and removes the handlers that it registers for uncaught errors, because they end the process with exit
 * code 7 and no message.
 */
import type * as Libolm from '@matrix-org/olm'

export type Olm = typeof Libolm

const TAKEN = ['uncaughtException', 'unhandledRejection'] as const

export async function loadOlm(): Promise<Olm> {
  const before = new Set(TAKEN.flatMap((event) => process.listeners(event as 'uncaughtException')))
  const { default: olm } = (await import('@matrix-org/olm')) as unknown as { default: Olm }
  await olm.init()
  for (const event of TAKEN) {
    for (const listener of process.listeners(event as 'uncaughtException')) {
      if (!before.has(listener)) process.removeListener(event, listener)
    }
  }
  return olm
}
