/**
 * Mixed load on all servers of a scenario until it is stopped: workers that do one thing at a time, again and again. What
 * may be asked twice is asked until it is answered, so that the ledger knows of it; nothing of it may then be there twice.
 */
import { claim, type Device, pick, reset, send, upload } from '../crash/operations.ts'
import type { Ledger } from '../crash/ledger.ts'
import { type Service, untilStopped } from './service.ts'

export class Traffic {
  readonly #workers: Promise<unknown>
  readonly #waiting = new Set<{ left: number; readonly resolve: () => void }>()
  #stopped = false

  /** `service` is to call `answered` at each answer. */
  constructor(service: Service, ledger: Ledger, devices: readonly Device[]) {
    const stopped = (): boolean => this.#stopped
    const patient = service.patient(stopped)
    // These reset their keys. A batch that is offered again after a reset may enter again, so they do not insist.
    const resetting = devices.slice(0, 2)
    const steady = devices.slice(2)
    const [syncing, ...receiving] = [...devices].reverse()
    if (syncing === undefined) throw new Error('there are no devices')
    const work = [
      ...resetting.map((device) => () => upload(service, ledger, device)),
      ...resetting.map((device) => () => reset(patient, ledger, device)),
      ...steady.map((device) => () => upload(patient, ledger, device)),
      ...Array.from({ length: 6 }, () => () => claim(service, ledger, pick(devices), devices)),
      ...resetting.map((device) => () => send(patient, ledger, device, pick(receiving))),
      () => sync(service, syncing),
    ]
    this.#workers = Promise.all(work.map((once) => untilStopped(stopped, once)))
    // Whoever waits for answers hears of it, or whoever stops.
    this.#workers.catch(() => {})
  }

  readonly answered = (): void => {
    for (const waiting of this.#waiting) if (--waiting.left <= 0) waiting.resolve()
  }

  /** Resolves after so many more answers; rejects when one was wrong. */
  async answers(count: number): Promise<void> {
    const { promise, resolve } = Promise.withResolvers<void>()
    const waiting = { left: count, resolve }
    this.#waiting.add(waiting)
    await this.meanwhile(promise).finally(() => this.#waiting.delete(waiting))
  }

  /** Waits for something else, or for an answer that is wrong. */
  async meanwhile<T>(other: Promise<T>): Promise<T> {
    const failed = this.#workers.then(() => Promise.reject(new Error('the traffic was stopped')))
    return Promise.race([other, failed])
  }

  /** Resolves when nothing is under way; rejects when an answer was wrong. */
  async stop(): Promise<void> {
    this.#stopped = true
    await this.#workers
  }
}

/** A device that nobody writes to looks for news. */
async function sync(service: Service, { token }: Device): Promise<void> {
  await service.call('GET', '/_matrix/client/v3/sync?timeout=0', token)
}
