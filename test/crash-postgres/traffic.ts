/**
 * Mixed load on all servers of a scenario until it is stopped: workers that repeat one operation at a time. Repeatable
 * requests are retried until they are answered, so that the ledger has them; none may then take effect twice.
 */
import { claim, type Device, pick, reset, send, upload } from '../crash/operations.ts'
import type { Ledger } from '../crash/ledger.ts'
import { type Service, untilStopped } from './service.ts'

export class Traffic {
  readonly #workers: Promise<unknown>
  readonly #waiting = new Set<{ left: number; readonly resolve: () => void }>()
  #stopped = false

  /** `service` must call `answered` for each answer. */
  constructor(service: Service, ledger: Ledger, devices: readonly Device[]) {
    const stopped = (): boolean => this.#stopped
    const retrying = service.retrying(stopped)
    // These devices reset keys. A batch uploaded again after a reset may be stored again, so they do not retry.
    const resetting = devices.slice(0, 2)
    const steady = devices.slice(2)
    const [syncing, ...receiving] = [...devices].reverse()
    if (syncing === undefined) throw new Error('no devices')
    const work = [
      ...resetting.map((device) => () => upload(service, ledger, device)),
      ...resetting.map((device) => () => reset(retrying, ledger, device)),
      ...steady.map((device) => () => upload(retrying, ledger, device)),
      ...Array.from({ length: 6 }, () => () => claim(service, ledger, pick(devices), devices)),
      ...resetting.map((device) => () => send(retrying, ledger, device, pick(receiving))),
      () => sync(service, syncing),
    ]
    this.#workers = Promise.all(work.map((once) => untilStopped(stopped, once)))
    // `answers` and `stop` report the failure.
    this.#workers.catch(() => {})
  }

  readonly answered = (): void => {
    for (const waiting of this.#waiting) if (--waiting.left <= 0) waiting.resolve()
  }

  /** Resolves after `count` more answers; rejects when one was wrong. */
  async answers(count: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const waiting = { left: count, resolve }
    this.#waiting.add(waiting)
    await this.meanwhile(promise).finally(() => this.#waiting.delete(waiting))
  }

  /** Waits for another promise; rejects when an answer was wrong. */
  async meanwhile<T>(other: Promise<T>): Promise<T> {
    const failed = this.#workers.then(() => Promise.reject(new Error('the traffic was stopped')))
    return Promise.race([other, failed])
  }

  /** Resolves when no request is pending; rejects when an answer was wrong. */
  async stop(): Promise<void> {
    this.#stopped = true
    await this.#workers
  }
}

/** Syncs a device that receives no messages. */
async function sync(service: Service, { token }: Device): Promise<void> {
  await service.call('GET', '/_matrix/client/v3/sync?timeout=0', token)
}
