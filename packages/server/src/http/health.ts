/**
 * Health endpoints for load balancers and orchestrators: no token, no rate limit. Live: the process answers; restart it
 * if it does not. Ready: its database answers too; send no requests until it does.
 */
import { setTimeout as wait } from 'node:timers/promises'
import { unavailable } from '../matrix-error.ts'
import type { Store } from '../store.ts'
import { publicEndpoint } from './endpoint.ts'

/** The server is not ready when the database takes longer than this to answer. */
const READY_WITHIN_MS = 2_000

const live = publicEndpoint({
  method: 'GET',
  path: '/health/live',
  handle: () => ({ status: 'live' }),
})

const ready = publicEndpoint({
  method: 'GET',
  path: '/health/ready',
  async handle({ context }) {
    if (!(await answers(context.store))) throw unavailable('The database does not answer.')
    return { status: 'ready' }
  },
})

export const healthApi = [live, ready] as const

/** One probe at a time, shared by all callers, so that a flood of them takes one connection to the database. */
const probes = new WeakMap<Store, Promise<boolean>>()

function probe(store: Store): Promise<boolean> {
  const running = probes.get(store)
  if (running !== undefined) return running
  const started = store
    .ready()
    .then(
      () => true,
      () => false,
    )
    .finally(() => probes.delete(store))
  probes.set(store, started)
  return started
}

async function answers(store: Store): Promise<boolean> {
  const timer = new AbortController()
  try {
    return await Promise.race([probe(store), wait(READY_WITHIN_MS, false, { signal: timer.signal })])
  } finally {
    timer.abort()
  }
}
