/**
 * A naive bot behind a guard, like an SDK that cannot be changed. The ledger is a file next to the bot's own. Without
 * the library it is the same bot without the guard.
 */
import type { Store } from '@latchkey/client'
import { fileStore } from '@latchkey/client/node'
import type { Disk } from './disk.ts'
import { guardOf } from './guard-of.ts'
import { type BotOptions, NaiveBot } from './naive-libolm.ts'

/** Number of one-time keys that libolm keeps. */
const SLOTS = 100

export function ledgerAt(path: string): Store {
  return fileStore(`${path}.ledger`)
}

export function guardedBot(
  common: Omit<BotOptions, 'disk' | 'guard' | 'habits'>,
  { disk, ledger }: { readonly disk: Disk; readonly ledger?: Store },
): NaiveBot {
  const { network, clock } = common
  const guard = ledger && guardOf(network.fetch, { store: ledger, clock, sdkSlots: SLOTS })
  return new NaiveBot({ ...common, disk, habits: { readsOnce: true }, ...(guard && { guard }) })
}
