/** Where one run of a scenario plays: a server, people who write, and devices with or without the library. */
import { join } from 'node:path'
import { MatrixSession } from '@latchkey/testing/matrix-session.ts'
import { JsSdkClient } from '@latchkey/testing/js-sdk-client.ts'
import { OlmDevice } from '@latchkey/testing/olm-device.ts'
import { Clock } from './clock.ts'
import type { Heals, LabDevice, LibolmDevice } from './device.ts'
import { fileDisk } from './disk.ts'
import { MachineDevice, type Shared } from './machine-device.ts'
import { MachineKeys } from './machine-keys.ts'
import { ManagedBot } from './managed-libolm.ts'
import { Mailbox } from './mailbox.ts'
import { type Habits, NaiveBot } from './naive-libolm.ts'
import { FaultyNetwork } from './network.ts'
import { JsSdkDevice, type SdkVersion } from './js-sdk-device.ts'
import { type Guard, guardOf, noGuard } from './guard-of.ts'
import { guardedBot, ledgerAt } from './guarded-libolm.ts'
import type { House } from './house.ts'
import { type PlainLevel, showAs } from './plain-server.ts'
import { RewindableStore } from './rewindable-store.ts'

export type LibolmOptions = { readonly habits?: Habits; readonly clock?: Clock; readonly level?: PlainLevel }

export type MachineOptions = {
  readonly level?: PlainLevel
  /** Sets faults before the device's first request. */
  readonly prepare?: (network: FaultyNetwork) => void
  /** The guard's option. */
  readonly newKeysPerDay?: number
}

/** Where a device's state is. */
export type Place = { readonly session: MatrixSession; readonly path: string }

export class Stage {
  readonly house: House
  readonly hasLibrary: boolean
  readonly #name: string
  readonly #devices: LabDevice[] = []
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
  async libolm({
    session,
    ...options
  }: LibolmOptions & { session?: MatrixSession } = {}): Promise<LibolmDevice> {
    const place = { session: session ?? (await this.signIn()), path: this.newFile() }
    const device = await this.libolmAt(place, options)
    await device.round()
    return device
  }

  /** A device on libolm on whatever its file holds; it has done nothing yet. */
  async libolmAt(
    { session, path }: Place,
    { habits, clock = new Clock(), level }: LibolmOptions = {},
  ): Promise<LibolmDevice> {
    const network = new FaultyNetwork()
    if (level !== undefined) showAs(level, network)
    const common = { olm: this.house.olm, session, network, clock }
    const device = this.hasLibrary
      ? await ManagedBot.open({ ...common, path })
      : new NaiveBot({ ...common, disk: fileDisk(path), ...(habits && { habits }) })
    return this.#noted(device)
  }

  /** A naive bot behind a guard, on whatever its files hold; it has done nothing yet. */
  guardedAt({ session, path }: Place): LibolmDevice {
    const common = { olm: this.house.olm, session, network: new FaultyNetwork(), clock: new Clock() }
    const ledger = this.hasLibrary ? { ledger: ledgerAt(path) } : {}
    return this.#noted(guardedBot(common, { disk: fileDisk(path), ...ledger }))
  }

  /** What the devices say that they healed; asked before they are closed. */
  async heals(): Promise<readonly Heals[]> {
    const heals = await Promise.all(this.#devices.map((device) => device.heals()))
    return heals.filter((it) => it !== undefined)
  }

  /** A device on an OlmMachine that has published its keys, its crypto store in IndexedDB. */
  async machine({ level, prepare, newKeysPerDay }: MachineOptions = {}): Promise<MachineDevice> {
    const shared = { ...newShared(), ...(newKeysPerDay !== undefined && { limits: { newKeysPerDay } }) }
    if (level !== undefined) showAs(level, shared.network)
    prepare?.(shared.network)
    const device = await this.#tab(await this.signIn(), shared)
    await device.round()
    return device
  }

  /** One more client on the session and the crypto store of a device; it has not synced yet. */
  tabBeside({ direct, shared }: MachineDevice): Promise<MachineDevice> {
    return this.#tab(direct, shared)
  }

  /** A matrix-js-sdk that has published its keys and syncs. */
  async jsSdk({ level, ...version }: SdkVersion & { level?: PlainLevel } = {}): Promise<JsSdkDevice> {
    const shared = newShared()
    if (level !== undefined) showAs(level, shared.network)
    const guard = this.#guard(shared)
    const keys = new MachineKeys(shared.saved)
    const client = await JsSdkClient.start(this.baseUrl, this.newUser(), 'DEVICE', {
      fetch: keys.watching(guard.fetch),
      ...version,
    })
    return this.#noted(new JsSdkDevice({ client, shared, keys, guard }))
  }

  async #tab(session: MatrixSession, shared: Shared): Promise<MachineDevice> {
    const keys = new MachineKeys(shared.saved)
    const guard = this.#guard(shared)
    const machine = await OlmDevice.signIn(this.baseUrl, {
      user: session.userId,
      deviceId: session.deviceId,
      storeName: session.userId,
      session,
      fetch: keys.watching(guard.fetch),
    })
    return this.#noted(new MachineDevice({ machine, direct: session, shared, keys, guard }))
  }

  #guard({ network, ledger, clock, limits }: Shared): Guard {
    return this.hasLibrary
      ? guardOf(network.fetch, { store: ledger, clock, ...limits })
      : noGuard(network.fetch)
  }

  #noted<Device extends LabDevice>(device: Device): Device {
    this.#devices.push(device)
    return device
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const device of this.#devices.reverse()) await device.close()
  }
}

function newShared(): Shared {
  return {
    saved: { keys: new Set() },
    network: new FaultyNetwork(),
    ledger: new RewindableStore(),
    clock: new Clock(),
  }
}
