/** The guard of one app: renewed when the app starts anew, over the same store. */
import { type ClientEvent, guardFetch, type GuardOptions, type Store } from '@latchkey/client'
import type { Clock } from './clock.ts'
import type { AnyJson, Fetch } from '@latchkey/testing/matrix-session.ts'
import type { Heals } from './device.ts'

export type Guard = {
  readonly fetch: Fetch
  readonly explain: (event: AnyJson) => Promise<string | undefined>
  readonly heals: () => Promise<Heals | undefined>
  renew(): void
  close(): Promise<void>
}

/** Options of the guard that a scenario needs other than they are. */
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
    // What cannot be read remembers nothing.
    heals: async () => ({ told: events, history: await guard.history().catch(() => []) }),
    renew() {
      guard = make()
    },
    close: () => store.close(),
  }
}

/** What an app without the library has: its requests as they are, and no idea. */
export function noGuard(net: Fetch): Guard {
  return {
    fetch: net,
    explain: async () => undefined,
    heals: async () => undefined,
    renew() {},
    close: async () => undefined,
  }
}
