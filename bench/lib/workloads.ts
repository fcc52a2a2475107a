/**
 * Workloads of the comparison of two checkouts: every slice has a fixed number of requests, so both reach the same
 * state.
 */
import { type FilledDevice } from './fill.ts'
import type { Request } from './load.ts'
import { claimOf, idleSyncs, uploadOf } from './requests.ts'

export type Workload = {
  readonly name: string
  /** Many devices with some keys each, or one device with many. */
  readonly template: 'many' | 'hot'
  readonly connections: number
  /** Requests per slice. */
  readonly count: number
  readonly claims?: true
  /** The requests of slice `slice`; at least `count` of them. */
  readonly make: (
    devices: readonly FilledDevice[],
    slice: number,
    count: number,
    url: string,
  ) => Promise<Request[]>
}

const RESET = '/_matrix/client/unstable/org.matrix.msc4162/keys/reset'
const CLAIMERS = 64
const WRITERS = 16
const SYNCED = 500
/** Key numbers that the filling and other workloads do not use; see `fresh`. */
const FIRST_KEY = { two: 1_000_000, fifty: 2_000_000, again: 3_000_000, replacement: 4_000_000 }

/** In the order in which they run over one copy of the template. */
export const WORKLOADS: readonly Workload[] = [
  {
    name: 'claims of one key, many devices',
    template: 'many',
    connections: CLAIMERS,
    count: 3000,
    claims: true,
    make: async (devices, slice, count) => spread(devices, slice, count, (device) => claimOf(device)),
  },
  {
    name: 'claims of one key, one device',
    template: 'hot',
    connections: CLAIMERS,
    count: 3000,
    claims: true,
    make: async (devices, slice, count) => spread(devices, slice, count, (device) => claimOf(device)),
  },
  {
    name: 'uploads of 2 keys',
    template: 'many',
    connections: WRITERS,
    count: 800,
    make: async (devices, slice, count) =>
      spread(devices, slice, count, (device, i) => uploadOf(device, 2, FIRST_KEY.two + i * 2)),
  },
  {
    name: 'uploads of 50 keys',
    template: 'many',
    connections: WRITERS,
    count: 150,
    make: async (devices, slice, count) =>
      spread(devices, slice, count, (device, i) => uploadOf(device, 50, FIRST_KEY.fifty + i * 50)),
  },
  {
    name: 'the same upload of 50 keys again',
    template: 'many',
    connections: WRITERS,
    count: 250,
    make: repeated((devices, count) =>
      spread(devices, 0, count, (device, i) => uploadOf(device, 50, FIRST_KEY.again + i * 50)),
    ),
  },
  {
    name: 'idle syncs',
    template: 'many',
    connections: CLAIMERS,
    count: 3000,
    make: async (devices, _slice, count, url) => {
      const syncs = await idleSyncs(url, devices.slice(0, SYNCED))
      return Array.from({ length: count }, (_, i) => syncs[i % syncs.length]).filter(
        (sync) => sync !== undefined,
      )
    },
  },
  {
    name: 'resets, replaced by 20 keys',
    template: 'many',
    connections: WRITERS,
    count: 150,
    make: async (devices, slice, count) =>
      spread(devices, slice, count, (device, i) => resetOf(device, FIRST_KEY.replacement + i * 20)),
  },
]

/** One request per device in turn; `i` numbers the requests of all slices. */
function spread(
  devices: readonly FilledDevice[],
  slice: number,
  count: number,
  request: (device: FilledDevice, i: number) => Request,
): Request[] {
  return Array.from({ length: count }, (_, n) => {
    const i = slice * count + n
    const device = devices[i % devices.length]
    if (device === undefined) throw new Error('no devices')
    return request(device, i)
  })
}

/** The requests of the first slice in every slice, for the same devices. */
function repeated(make: (devices: readonly FilledDevice[], count: number) => Request[]): Workload['make'] {
  const made = new WeakMap<readonly FilledDevice[], Request[]>()
  return async (devices, _slice, count) => {
    const requests = made.get(devices) ?? make(devices, count)
    made.set(devices, requests)
    return requests
  }
}

function resetOf(device: FilledDevice, from: number): Request {
  const { body = '' } = uploadOf(device, 20, from)
  return { method: 'POST', path: RESET, token: device.token, body: `{"all":true,${body.slice(1)}` }
}
