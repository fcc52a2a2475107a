/** Where one run of a scenario plays: a server, people who write, and devices with or without the library. */
import { join } from 'node:path'
import { MatrixSession } from '../../test/support/matrix-session.ts'
import { JsSdkClient } from '../../test/support/js-sdk-client.ts'
import { OlmDevice } from '../../test/support/olm-device.ts'
import { Clock } from './clock.ts'
import type { LibolmDevice } from './device.ts'
import { fileDisk } from './disk.ts'
import { MachineDevice, PublishedKeys, type Shared } from './machine-device.ts'
import { ManagedBot } from './managed-libolm.ts'
import { Mailbox } from './mailbox.ts'
import { type Habits, NaiveBot } from './naive-libolm.ts'
import { FaultyNetwork } from './network.ts'
import { JsSdkDevice, type SdkVersion } from './js-sdk-device.ts'
import { type Guard, guardOf, noGuard } from './guard-of.ts'
import type { House } from './house.ts'
import { RewindableStore } from './rewindable-store.ts'

export type LibolmOptions = { readonly habits?: Habits; readonly clock?: Clock }

export class Stage {
  readonly house: House
  readonly hasLibrary: boolean
  readonly #name: string
  readonly #closing: (() => Promise<void>)[] = []
  #users = 0
  #files = 0

  /** `name` is in the names of its users, so it has to be of this run alone. */
  constructor(house: House, name: string, hasLibrary: boolean) {
    this.house = house
    this.#name = `${name}-${hasLibrary ? 'with' : 'without'}`
    this.hasLibrary = hasLibrary
  }

  get baseUrl(): string {
    return this.house.url
  }

  newUser(): string {
    return `${this.#name}-${++this.#users}`
  }

  /** A path where no file is. */
  newFile(): string {
    return join(this.house.directory, `${this.#name}-${++this.#files}`)
  }

  /** A session of a new user, past all faults. */
  signIn(): Promise<MatrixSession> {
    return MatrixSession.signIn(this.baseUrl, this.newUser(), 'DEVICE')
  }

  mailbox(device: ConstructorParameters<typeof Mailbox>[1]): Mailbox {
    return new Mailbox(this.house.senders, device)
  }

  /** A device on libolm that has published its keys. */
  async libolm(options: LibolmOptions = {}): Promise<LibolmDevice> {
    const device = await this.libolmAt({ session: await this.signIn(), path: this.newFile() }, options)
    await device.round()
    return device
  }

  /** A device on libolm on whatever its file holds; it has done nothing yet. */
  async libolmAt(
    { session, path }: { readonly session: MatrixSession; readonly path: string },
    { habits, clock = new Clock() }: LibolmOptions = {},
  ): Promise<LibolmDevice> {
    const common = { olm: this.house.olm, session, network: new FaultyNetwork(), clock }
    const device = this.hasLibrary
      ? await ManagedBot.open({ ...common, path })
      : new NaiveBot({ ...common, disk: fileDisk(path), ...(habits && { habits }) })
    this.#closing.push(() => device.close())
    return device
  }

  /** A device on an OlmMachine that has published its keys, its crypto store in IndexedDB. */
  async machine(prepare: (network: FaultyNetwork) => void = () => undefined): Promise<MachineDevice> {
    const shared = newShared()
    prepare(shared.network)
    const device = await this.#tab(await this.signIn(), shared)
    await device.round()
    return device
  }

  /** One more client on the session and the crypto store of a device; it has not synced yet. */
  tabBeside({ direct, shared }: MachineDevice): Promise<MachineDevice> {
    return this.#tab(direct, shared)
  }

  /** A matrix-js-sdk that has published its keys and syncs. */
  async jsSdk(version: SdkVersion = {}): Promise<JsSdkDevice> {
    const shared = newShared()
    const send = shared.keys.watching(this.#guard(shared).fetch)
    const client = await JsSdkClient.start(this.baseUrl, this.newUser(), 'DEVICE', {
      fetch: send,
      ...version,
    })
    const device = new JsSdkDevice({ client, shared })
    this.#closing.push(() => device.close())
    return device
  }

  async #tab(session: MatrixSession, shared: Shared): Promise<MachineDevice> {
    const { keys } = shared
    const guard = this.#guard(shared)
    const machine = await OlmDevice.signIn(this.baseUrl, {
      user: session.userId,
      deviceId: session.deviceId,
      storeName: session.userId,
      session,
      fetch: keys.watching(guard.fetch),
    })
    const device = new MachineDevice({ machine, direct: session, shared, guard })
    this.#closing.push(() => device.close())
    return device
  }

  #guard({ network, ledger, clock }: Shared): Guard {
    return this.hasLibrary ? guardOf(network, ledger, clock) : noGuard(network)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const close of this.#closing.reverse()) await close()
  }
}

function newShared(): Shared {
  return {
    keys: new PublishedKeys(),
    network: new FaultyNetwork(),
    ledger: new RewindableStore(),
    clock: new Clock(),
  }
}
