/**
 * The embedded store: one SQLite file, one process, group commit. Implements every port of the domain; each operation
 * is a file of this folder.
 */
import type { AccountStore } from '../../accounts/port.ts'
import type { DeviceStore } from '../../devices/port.ts'
import type { MessageStore } from '../../messages/port.ts'
import type { PoolStore } from '../../pool/port.ts'
import type { Store } from '../../store.ts'
import type { SyncStore } from '../../sync/port.ts'
import {
  createAccount,
  createRegistrationToken,
  findAccount,
  registrationTokenValid,
  replaceHash,
  setPassword,
} from './accounts.ts'
import { adminStore } from './admin.ts'
import { authSessionStore } from './auth-sessions.ts'
import { changePools } from './change-pools.ts'
import { claimKeys } from './claim-keys.ts'
import { type Core, type CoreOptions, createCore } from './core.ts'
import type { Database } from './database.ts'
import { deactivateAccount } from './deactivate.ts'
import { addSignatures, putCrossSigning } from './cross-signing.ts'
import { DEFAULT_SERVER_NAME, requireServerName } from '../server-name.ts'
import { lockDirectory } from '../lock-file.ts'
import { openDatabase } from './open-database.ts'
import { getDevice, listDevices, renameDevice } from './device-rows.ts'
import { knowsNetwork } from './known-networks.ts'
import { readOrCreateMeta, readText } from './meta.ts'
import { openFence, type OpenFenceOptions } from './open-fence.ts'
import { type Loss, Owner, OwnerLostError } from './owner.ts'
import { inspectPool } from './inspect-pool.ts'
import { publishedKeys } from './published-keys.ts'
import { readSync } from './read-sync.ts'
import { confirmRefresh, refreshTokens } from './refresh.ts'
import { removeDevices } from './remove-devices.ts'
import { sendMessages } from './send-messages.ts'
import { findSession, openSession } from './sessions.ts'
import { startSweeping } from './sweep.ts'
import { changedSince, trackUsers } from './tracked-users.ts'
import { accountData, findFilter, putAccountData, putFilter } from './user-data.ts'

export { backUpDatabase, type BackupSummary } from './backup.ts'
export { restoreDatabase, type RestoreStep, type RestoreSummary } from './restore.ts'
export { adoptFence, fenceStatus, raiseFence } from './fence-commands.ts'

export type SqliteOptions = CoreOptions &
  OpenFenceOptions & {
    readonly directory: string
    /** How long removed devices, and the details of keys that left their pool, are kept. */
    readonly retentionMs: number
    /** This process has lost the database: every request is refused with 503, and it must end. */
    readonly onLost?: (loss: Loss) => void
  }

/**
 * @throws {StoreError} when another process has the directory, the file is damaged or from a newer version, or the
 *   fence's witness cannot be written.
 */
export async function openSqliteStore(options: SqliteOptions): Promise<Store> {
  using opening = new DisposableStack()
  opening.adopt(lockDirectory(options.directory), (it) => it.close())
  const db = opening.adopt(openDatabase(options.directory), (it) => it.close())
  const owner = Owner.take(db, options.onLost ?? (() => {}))
  const witness = opening.adopt(await openFence(db, options), (it) => it?.close())
  const core = createCore(db, options, witness)
  settleLog(db, core)
  const stopSweeping = startSweeping(core, options.retentionMs, options.now)
  const stopWatching = owner.watch()
  const opened = opening.move()
  const close = async (): Promise<void> => {
    stopSweeping()
    stopWatching()
    core.lastSeen.write()
    try {
      await core.queue.close()
      if (owner.isLost) return
      core.queue.rebuildMemory()
      settleLog(db, core)
    } catch (error) {
      if (!(error instanceof OwnerLostError)) throw error
    } finally {
      opened.dispose()
    }
  }
  let closing: Promise<void> | undefined
  return { ...storeOver(core, db, () => owner.require()), close: () => (closing ??= close()) }
}

/**
 * Every port of the domain over one core. The caller opens and closes the database.
 *
 * @param requireOwner runs before answers from memory: sessions, and what is read for them
 */
export function storeOver(core: Core, db: Database, requireOwner: () => void = () => {}): Store {
  return {
    accounts: accountStore(core, requireOwner),
    admin: adminStore(core),
    authSessions: authSessionStore(core),
    devices: deviceStore(core),
    messages: messageStore(core),
    pools: poolStore(core),
    sync: syncStore(core, requireOwner),
    claimServerName: async (name) => claimServerName(db, name),
    async ready() {
      requireOwner()
      core.db.one(`select 1`)
    },
    close: () => core.queue.close(),
  }
}

/** Empties the issue log into its rows: at open, and at close so that the next open has nothing to replay. */
function settleLog(db: Database, { keys }: Core): void {
  db.transaction((tx) => keys.settleAll(tx))
}

function claimServerName(db: Database, name: string | undefined): string {
  const held = db.transaction((tx) => readOrCreateMeta(tx, 'server_name', () => name ?? DEFAULT_SERVER_NAME))
  requireServerName(held, name, 'another --data directory')
  return held
}

function accountStore(core: Core, requireOwner: () => void): AccountStore {
  return {
    create: (account) => createAccount(core, account),
    find: async (userId) => findAccount(core.db, userId),
    knowsNetwork: async (networkHash, userId) => knowsNetwork(core.db, networkHash, userId),
    registrationTokenValid: async (tokenHash, now) => registrationTokenValid(core, tokenHash, now),
    createRegistrationToken: (token) => createRegistrationToken(core, token),
    openSession: (session) => openSession(core, session),
    async session(tokenHash) {
      requireOwner()
      return findSession(core, tokenHash)
    },
    refresh: (refresh) => refreshTokens(core, refresh),
    confirmRefresh: (session) => confirmRefresh(core, session),
    replaceHash: (change) => replaceHash(core, change),
    setPassword: (change) => setPassword(core, change),
    deactivate: (deactivation) => deactivateAccount(core, deactivation),
    seen: (session, ip, now) => core.lastSeen.note(session, ip, now),
  }
}

function deviceStore(core: Core): DeviceStore {
  return {
    list: async (user) => listDevices(core, user),
    get: async (user, deviceId) => getDevice(core, user, deviceId),
    rename: (session, deviceId, displayName) => renameDevice(core, session, deviceId, displayName),
    remove: (session, deviceIds, now, finishes) =>
      removeDevices(core, session, { kind: 'named', deviceIds }, now, finishes),
    removeAll: (session, now) => removeDevices(core, session, { kind: 'all' }, now),
    published: async (userIds, viewer) => publishedKeys(core, userIds, viewer),
    track: (session, userIds) => trackUsers(core, session, userIds),
    changedSince: async (user, since, upTo) => changedSince(core, user, since, upTo),
    putCrossSigning: (session, changed, seenMaster, finishes) =>
      putCrossSigning(core, session, changed, seenMaster, finishes),
    addSignatures: (session, target, signatures) => addSignatures(core, session, target, signatures),
  }
}

function messageStore(core: Core): MessageStore {
  return { send: (command) => sendMessages(core, command) }
}

function poolStore(core: Core): PoolStore {
  return {
    change: (session, wanted, decide) => changePools(core, session, wanted, decide),
    claim: (command) => claimKeys(core, command),
    inspect: (session, page) => inspectPool(core, session, page),
  }
}

function syncStore(core: Core, requireOwner: () => void): SyncStore {
  return {
    async read(session, query) {
      requireOwner()
      return readSync(core, session, query)
    },
    end: async (token) => core.fence.endOfStream(token),
    tokenSecret: readText(core.db, 'token_secret'),
    subscribe: (listener) => core.wakes.subscribe(listener),
    putFilter: (session, json) => putFilter(core, session, json),
    filter: async (user, filterId) => findFilter(core, user, filterId),
    putAccountData: (session, type, content) => putAccountData(core, session, type, content),
    accountData: async (user, type) => accountData(core, user, type),
  }
}
