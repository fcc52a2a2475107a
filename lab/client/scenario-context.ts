/** The context of one run of a scenario: a server, senders, and devices with or without the library. */
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
import type { LabServer } from './lab-server.ts'
import { type PlainLevel, emulate } from './plain-server.ts'
import { RewindableStore } from './rewindable-store.ts'

export type LibolmOptions = { readonly habits?: Habits; readonly clock?: Clock; readonly level?: PlainLevel }

export type MachineOptions = {
  readonly level?: PlainLevel
  /** Sets faults before the device's first request. */
  readonly prepare?: (network: FaultyNetwork) => void
  /** Option of the guard. */
  readonly newKeysPerDay?: number
}

/** Session of a device and path of its state. */
export type Place = { readonly session: MatrixSession; readonly path: string }

export class ScenarioContext {
  readonly server: LabServer
  readonly hasLibrary: boolean
  readonly #name: string
  readonly #devices: LabDevice[] = []
  #users = 0
  #files = 0

  /** `name` is part of its users' names and must be unique per run. */
  constructor(server: LabServer, name: string, hasLibrary: boolean) {
    this.server = server
    this.#name = `${name}-${hasLibrary ? 'with' : 'without'}`
    this.hasLibrary = hasLibrary
  }

  get baseUrl(): string {
    return this.server.url
  }

  newUser(): string {
    return `${this.#name}-${++this.#users}`
  }

  /** Path of a new file. */
  newFile(): string {
    return join(this.server.directory, `${this.#name}-${++this.#files}`)
  }

  /** A session of a new user, without network faults. */
  signIn(): Promise<MatrixSession> {
    return MatrixSession.signIn(this.baseUrl, this.newUser(), 'DEVICE')
  }

  mailbox(device: ConstructorParameters<typeof Mailbox>[1]): Mailbox {
    return new Mailbox(this.server.senders, device)
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

  /** Opens a device on libolm from its file; it sends nothing yet. */
  async libolmAt(
    { session, path }: Place,
    { habits, clock = new Clock(), level }: LibolmOptions = {},
  ): Promise<LibolmDevice> {
    const network = new FaultyNetwork()
    if (level !== undefined) emulate(level, network)
    const common = { olm: this.server.olm, session, network, clock }
    const device = this.hasLibrary
      ? await ManagedBot.open({ ...common, path })
      : new NaiveBot({ ...common, disk: fileDisk(path), ...(habits && { habits }) })
    return this.#noted(device)
  }

  /** Opens a naive bot behind a guard from its files; it sends nothing yet. */
  guardedAt({ session, path }: Place): LibolmDevice {
    const common = { olm: this.server.olm, session, network: new FaultyNetwork(), clock: new Clock() }
    const ledger = this.hasLibrary ? { ledger: ledgerAt(path) } : {}
    return this.#noted(guardedBot(common, { disk: fileDisk(path), ...ledger }))
  }

  /** Heals that the devices report. Call before they are closed. */
  async heals(): Promise<readonly Heals[]> {
    const heals = await Promise.all(this.#devices.map((device) => device.heals()))
    return heals.filter((it) => it !== undefined)
  }

  /** A device on an OlmMachine that has published its keys, its crypto store in IndexedDB. */
  async machine({ level, prepare, newKeysPerDay }: MachineOptions = {}): Promise<MachineDevice> {
    const shared = { ...newShared(), ...(newKeysPerDay !== undefined && { limits: { newKeysPerDay } }) }
    if (level !== undefined) emulate(level, shared.network)
    prepare?.(shared.network)
    const device = await this.#tab(await this.signIn(), shared)
    await device.round()
    return device
  }

  /** Another client on the session and crypto store of a device; it has not synced yet. */
  secondTab({ direct, shared }: MachineDevice): Promise<MachineDevice> {
    return this.#tab(direct, shared)
  }

  /** A syncing matrix-js-sdk client that has published its keys. */
  async jsSdk({ level, ...version }: SdkVersion & { level?: PlainLevel } = {}): Promise<JsSdkDevice> {
    const shared = newShared()
    if (level !== undefined) emulate(level, shared.network)
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
