/** The ports of all domain folders over one core. */
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
import { authSessionStore } from './auth-sessions.ts'
import { adminStore } from './admin.ts'
import { changePools } from './change-pools.ts'
import type { ClaimBatcher } from './claim-batcher.ts'
import type { Core } from './core.ts'
import { addSignatures, putCrossSigning } from './cross-signing.ts'
import { deactivateAccount } from './deactivate.ts'
import { getDevice, listDevices, renameDevice } from './device-rows.ts'
import { sessionLookUps } from './find-sessions.ts'
import { inspectPool } from './inspect-pool.ts'
import { knowsNetwork } from './known-networks.ts'
import { claimServerName } from './meta.ts'
import { publishedKeys } from './published-keys.ts'
import { endOfStream, readSync } from './read-sync.ts'
import { confirmRefresh, refreshTokens } from './refresh.ts'
import { removeDevices } from './remove-devices.ts'
import { sendBatches } from './send-messages.ts'
import { openSession } from './sessions.ts'
import { overviewBatches } from './sync-overview.ts'
import { changedSince, trackUsers } from './tracked-users.ts'
import { accountData, findFilter, putAccountData, putFilter } from './user-data.ts'

export function storeOver(
  core: Core,
  claims: ClaimBatcher,
  tokenSecret: string,
  close: () => Promise<void>,
): Store {
  let closing: Promise<void> | undefined
  return {
    accounts: accountStore(core),
    admin: adminStore(core),
    authSessions: authSessionStore(core),
    devices: deviceStore(core),
    messages: messageStore(core),
    pools: poolStore(core, claims),
    sync: syncStore(core, tokenSecret),
    claimServerName: (name) => claimServerName(core.db, name),
    async ready() {
      await core.db.one(`select 1`)
    },
    connections: () => core.db.counts,
    close: () => (closing ??= close()),
  }
}

function accountStore(core: Core): AccountStore {
  const lookUps = sessionLookUps(core.db)
  return {
    create: (account) => createAccount(core, account),
    find: (userId) => findAccount(core.db, userId),
    knowsNetwork: (networkHash, userId) => knowsNetwork(core.db, networkHash, userId),
    registrationTokenValid: (tokenHash, now) => registrationTokenValid(core.db, tokenHash, now),
    createRegistrationToken: (token) => createRegistrationToken(core.db, token),
    openSession: (session) => openSession(core, session),
    session: (tokenHash) => lookUps.submit(tokenHash),
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
    list: (user) => listDevices(core, user),
    get: (user, deviceId) => getDevice(core, user, deviceId),
    rename: (session, deviceId, displayName) => renameDevice(core, session, deviceId, displayName),
    remove: (session, deviceIds, now, finishes) =>
      removeDevices(core, session, { kind: 'named', deviceIds }, now, finishes),
    removeAll: (session, now) => removeDevices(core, session, { kind: 'all' }, now),
    published: (userIds, viewer) => publishedKeys(core, userIds, viewer),
    track: (session, userIds) => trackUsers(core, session, userIds),
    changedSince: (user, since, upTo) => changedSince(core.db, user, since, upTo),
    putCrossSigning: (session, changed, seenMaster, finishes) =>
      putCrossSigning(core, session, changed, seenMaster, finishes),
    addSignatures: (session, target, signatures) => addSignatures(core, session, target, signatures),
  }
}

function messageStore(core: Core): MessageStore {
  const batches = sendBatches(core)
  return { send: (command) => batches.submit(command) }
}

function poolStore(core: Core, claims: ClaimBatcher): PoolStore {
  return {
    change: (session, wanted, decide) => changePools(core, session, wanted, decide),
    claim: (command) => claims.claim(command),
    inspect: (session, page) => inspectPool(core, session, page),
  }
}

function syncStore(core: Core, tokenSecret: string): SyncStore {
  const overviews = overviewBatches(core.db)
  return {
    read: (session, query) => readSync(core, overviews, session, query),
    end: (token) => endOfStream(core, token),
    tokenSecret,
    subscribe: (listener) => core.notifier.subscribe(listener),
    putFilter: (session, json) => putFilter(core, session, json),
    filter: (user, filterId) => findFilter(core, user, filterId),
    putAccountData: (session, type, content) => putAccountData(core, session, type, content),
    accountData: (user, type) => accountData(core, user, type),
  }
}
