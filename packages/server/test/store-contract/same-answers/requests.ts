/** Request builders for the steps of a history. */
import { both, type PairRequest } from './server-pair.ts'

export const PASSWORD = 'password'

export function authOf(userId: string, password: 'right' | 'wrong'): object {
  return {
    type: 'm.login.password',
    identifier: { type: 'm.id.user', user: userId },
    password: password === 'right' ? PASSWORD : 'not the password',
  }
}

export function get(path: string): PairRequest {
  return { method: 'GET', path: both(() => path) }
}

export function post(path: string, body: unknown): PairRequest {
  return { method: 'POST', path: both(() => path), ...(body !== undefined && { body: both(() => body) }) }
}

export function put(path: string, body: unknown): PairRequest {
  return { ...post(path, body), method: 'PUT' }
}

const MAX_BODY_LENGTH = 600

export function describe({ method, path, body }: PairRequest): string {
  const text = body === undefined ? '' : ` ${JSON.stringify(body.sqlite)}`
  return `${method} ${path.sqlite}${text.slice(0, MAX_BODY_LENGTH)}`
}
