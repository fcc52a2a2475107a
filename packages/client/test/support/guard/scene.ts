/** A device behind a guard, a claimer of its keys, and every event that the guard emitted. */
import { memoryStore } from '../../../src/store/memory.ts'
import { StoreError, type Store } from '../../../src/store/store.ts'
import type { ClientEvent, ClientEventType } from '../../../src/events.ts'
import { type Guard, guardFetch, type GuardOptions } from '../../../src/guard/guard-fetch.ts'
import { type Fetch, MatrixSession } from '@latchkey/testing/matrix-session.ts'
import { ModelSdk } from './model-sdk.ts'

export type Scene = {
  readonly sdk: ModelSdk
  readonly guard: Guard
  readonly store: Store
  readonly events: ClientEvent[]
  /** Events of one type. */
  readonly emitted: <Type extends ClientEventType>(type: Type) => Extract<ClientEvent, { type: Type }>[]
  /** Claims keys of the device as another user. */
  readonly claim: (count: number) => Promise<void>
  /** Another guard on the same store, or on a given one: a reload, another tab, a restored backup. */
  readonly reopen: (options?: Partial<GuardOptions>) => Guard
}

export async function startScene(
  url: string,
  user: string,
  options: Partial<GuardOptions> & { fetch?: Fetch; target?: number } = {},
): Promise<Scene> {
  const { fetch: net = fetch, target, ...guardOptions } = options
  const session = await MatrixSession.signIn(url, user, 'PHONE')
  const stranger = (await MatrixSession.signIn(url, `${user}-stranger`, 'OTHER')).through(net)
  const events: ClientEvent[] = []
  const store = guardOptions.store ?? memoryStore()
  const open = (more: Partial<GuardOptions> = {}): Guard =>
    guardFetch(net as typeof fetch, {
      store,
      onEvent: (event) => events.push(event),
      ...guardOptions,
      ...more,
    })
  const guard = open()
  return {
    sdk: new ModelSdk(session, { fetch: guard, ...(target !== undefined && { target }) }),
    guard,
    store,
    events,
    emitted: <Type extends ClientEventType>(type: Type) =>
      events.filter((event): event is Extract<ClientEvent, { type: Type }> => event.type === type),
    async claim(count) {
      await stranger.claimMany(session.userId, session.deviceId, count)
    },
    reopen: open,
  }
}

/** A copy of a store: a backup of it. */
export async function copyOf(store: Store): Promise<Store> {
  const { records } = await store.read()
  const copy = memoryStore()
  await copy.write(0, new Map(records))
  return copy
}

/** A store that fails while `broken.is` is true. */
export function breakable(store: Store, broken: { is: boolean }): Store {
  const check = (): void => {
    if (broken.is) throw new StoreError('unreadable', 'the disk is on fire')
  }
  return {
    async read() {
      check()
      return store.read()
    },
    async generation() {
      check()
      return store.generation()
    },
    async write(expected, changes) {
      check()
      return store.write(expected, changes)
    },
    exclusively: (work) => store.exclusively(work),
    close: () => store.close(),
  }
}

/** Keys that the server would issue and the SDK cannot use, read without proxies and guards. */
export function orphansAt(url: string, { session, state }: ModelSdk): Promise<string[]> {
  const direct = new ModelSdk(directly(url, session))
  direct.restore(state)
  return direct.orphans()
}

/** A direct session of the device with the server. */
export function directly(url: string, { userId, deviceId, token }: MatrixSession): MatrixSession {
  return MatrixSession.resume({ baseUrl: url, userId, deviceId, token })
}
