/** The guard of one app; recreated over the same store when the app restarts. */
import { type ClientEvent, guardFetch, type GuardOptions, type Store } from '@latchkey/client'
import type { Clock } from './clock.ts'
import type { AnyJson, Fetch } from '@latchkey/testing/matrix-session.ts'
import type { Heals } from './device.ts'

export type Guard = {
  readonly fetch: Fetch
  readonly explain: (event: AnyJson) => Promise<string | undefined>
  readonly heals: () => Promise<Heals | undefined>
  recreate(): void
  close(): Promise<void>
}

/** Options of the guard that scenarios change. */
export type GuardLimits = Pick<GuardOptions, 'newKeysPerDay' | 'sdkSlots'>

export function guardOf(
  net: Fetch,
  { store, clock, ...limits }: GuardLimits & { readonly store: Store; readonly clock: Clock },
): Guard {
  const events: ClientEvent[] = []
  const make = () =>
    guardFetch(net as typeof fetch, {
      store,
      now: clock.now,
      onEvent: (event) => events.push(event),
      ...limits,
    })
  let guard = make()
  return {
    fetch: (input, init) => guard(input, init),
    explain: (event) => guard.reportUndecryptable(event),
    // An unreadable ledger has no history.
    heals: async () => ({ events, history: await guard.history().catch(() => []) }),
    recreate() {
      guard = make()
    },
    close: () => store.close(),
  }
}

/** For an app without the library: passes requests unchanged and explains nothing. */
export function noGuard(net: Fetch): Guard {
  return {
    fetch: net,
    explain: async () => undefined,
    heals: async () => undefined,
    recreate() {},
    close: async () => undefined,
  }
}
