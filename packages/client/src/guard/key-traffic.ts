/**
 * Recognises requests about the device's own keys, and extracts what the guard needs to know before they are sent.
 * Paths: client-server API `/keys/upload`, `/sync`; MSC4162 `/keys/reset`; MSC4186 sliding sync.
 */

export type KeyTraffic = {
  readonly kind: 'upload' | 'reset' | 'sync' | 'sliding_sync'
  /** Everything before `/_matrix/client`: a reverse proxy may put the server below a path. */
  readonly baseUrl: string
  /** The API version that the SDK uses, for the guard's own requests. */
  readonly version: 'r0' | 'v3'
  readonly token: string
  readonly signal: AbortSignal | undefined
}

export type Input = Parameters<typeof fetch>[0]

const KEY_PATH = /^(.*)\/_matrix\/client\/(r0|v1|v3|unstable)\/(.+?)\/?$/
const RESET_PATHS: readonly string[] = ['keys/reset', 'org.matrix.msc4162/keys/reset']
const SLIDING_PATH = 'org.matrix.simplified_msc3575/sync'

/** The kind of key traffic of a request; undefined for requests that pass unchanged. */
export function keyTrafficOf(input: Input, init: RequestInit | undefined): KeyTraffic | undefined {
  const request = isRequest(input) ? input : undefined
  const address = addressOf(input)
  // Cheap check first: most requests of an app are not key traffic.
  if (!address.includes('/_matrix/client/')) return undefined
  const url = urlOf(address)
  const [, path, version, endpoint] = KEY_PATH.exec(url?.pathname ?? '') ?? []
  if (url === undefined || path === undefined || endpoint === undefined) return undefined
  // On behalf of another user or device (application services, MSC3202): not the device of this store.
  if (url.searchParams.has('user_id') || url.searchParams.has('org.matrix.msc3202.device_id'))
    return undefined
  const kind = kindOf((init?.method ?? request?.method ?? 'GET').toUpperCase(), endpoint)
  const token = tokenOf(new Headers(init?.headers ?? request?.headers), url)
  if (kind === undefined || token === undefined) return undefined
  return {
    kind,
    baseUrl: url.origin + path,
    version: version === 'r0' ? 'r0' : 'v3',
    token,
    signal: init?.signal ?? request?.signal,
  }
}

/** Whether an input is a Request, of this or another realm (an iframe, a polyfill). */
export function isRequest(input: unknown): input is Request {
  return typeof input === 'object' && input !== null && 'url' in input && typeof input.url === 'string'
}

/** The URL text that fetch derives from its input. */
function addressOf(input: Input): string {
  return isRequest(input) ? input.url : String(input)
}

function kindOf(method: string, endpoint: string): KeyTraffic['kind'] | undefined {
  if (method === 'GET') return endpoint === 'sync' ? 'sync' : undefined
  if (method !== 'POST') return undefined
  // The old form of the path ends with the device ID.
  if (/^keys\/upload(\/[^/]+)?$/.test(endpoint)) return 'upload'
  if (RESET_PATHS.includes(endpoint)) return 'reset'
  return endpoint === SLIDING_PATH ? 'sliding_sync' : undefined
}

function tokenOf(headers: Headers, url: URL): string | undefined {
  const [, bearer] = /^Bearer (.+)$/i.exec(headers.get('authorization') ?? '') ?? []
  return bearer ?? url.searchParams.get('access_token') ?? undefined
}

function urlOf(address: string): URL | undefined {
  try {
    return new URL(address, globalThis.location?.href)
  } catch {
    return undefined
  }
}
