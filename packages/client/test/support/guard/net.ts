/** The network between a guard and its server: single requests can be answered by the test, or lost. */
import type { AnyJson, Fetch } from '@latchkey/testing/matrix-session.ts'

export class GuardNet {
  /** Paths of the requests that were sent, after `/_matrix/client`. */
  readonly paths: string[] = []
  readonly #meetings: { readonly path: string; readonly look: () => Promise<void> }[] = []
  readonly #changes: { readonly path: string; readonly change: (body: AnyJson) => AnyJson }[] = []
  #faults: { readonly path: string; times: number; readonly answer: () => Response }[] = []

  /** The next requests to a path with this ending get this answer; without an answer they fail. */
  fail(path: string, answer?: { readonly status: number; readonly body?: unknown }, times = 1): void {
    const made = (): Response => {
      if (answer === undefined) throw new TypeError('fetch failed')
      return Response.json(answer.body ?? { errcode: 'M_UNKNOWN' }, { status: answer.status })
    }
    this.#faults.push({ path, times, answer: made })
  }

  /** Calls back before each request to such a path is sent. */
  meet(path: string, look: () => Promise<void>): void {
    this.#meetings.push({ path, look })
  }

  /** Replaces the body of each request to such a path. */
  change(path: string, change: (body: AnyJson) => AnyJson): void {
    this.#changes.push({ path, change })
  }

  /** Ends all failures. */
  mend(): void {
    this.#faults = []
  }

  count(path: string): number {
    return this.paths.filter((sent) => sent.endsWith(path)).length
  }

  readonly fetch: Fetch = async (input, init) => {
    const { pathname } = new URL(input instanceof Request ? input.url : String(input))
    this.paths.push(pathname.replace(/^.*\/_matrix\/client/, ''))
    for (const { path, look } of this.#meetings) if (pathname.endsWith(path)) await look()
    const fault = this.#faults.find(({ path, times }) => times > 0 && pathname.endsWith(path))
    if (fault !== undefined) {
      fault.times--
      return fault.answer()
    }
    const change = this.#changes.find(({ path }) => pathname.endsWith(path))?.change
    if (change === undefined || typeof init?.body !== 'string') return fetch(input, init)
    return fetch(input, { ...init, body: JSON.stringify(change(JSON.parse(init.body))) })
  }
}
