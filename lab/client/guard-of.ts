/** The guard of one app: renewed when the app starts anew, over the same store. */
import { type ClientEvent, guardFetch } from '@latchkey/client'
import type { Clock } from './clock.ts'
import type { AnyJson, Fetch } from '../../test/support/matrix-session.ts'
import type { FaultyNetwork } from './network.ts'
import type { RewindableStore } from './rewindable-store.ts'

export type Guard = {
  readonly fetch: Fetch
  readonly explain: (event: AnyJson) => Promise<string | undefined>
  readonly events: readonly ClientEvent[]
  renew(): void
}

export function guardOf(network: FaultyNetwork, ledger: RewindableStore, clock: Clock): Guard {
  const events: ClientEvent[] = []
  const make = () =>
    guardFetch(network.fetch, { store: ledger, now: clock.now, onEvent: (event) => events.push(event) })
  let guard = make()
  return {
    fetch: (input, init) => guard(input, init),
    explain: (event) => guard.reportUndecryptable(event),
    events,
    renew() {
      guard = make()
    },
  }
}

/** What an app without the library has: its requests as they are, and no idea. */
export function noGuard(network: FaultyNetwork): Guard {
  return { fetch: network.fetch, explain: async () => undefined, events: [], renew() {} }
}
