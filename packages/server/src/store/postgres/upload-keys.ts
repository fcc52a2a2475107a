/**
 * `/keys/upload`: device keys, one-time keys and fallback keys of one request, together or not at all.
 * Rules in this order: identity (pool/identity.ts), material, then ID (pool/upload.ts).
 */
import type { KeyMaterial } from '@latchkey/protocol'
import { type RefusedTry, tryOf } from '../../pool/conflict.ts'
import { compareIdentity, type Identity, type IdentityPart } from '../../pool/identity.ts'
import type { UploadCommand, UploadedDeviceKeys, UploadResult } from '../../pool/port.ts'
import { requireSignedDeviceKeys } from '../../pool/signed-keys.ts'
import type { DeviceRef } from '../../session.ts'
import { judgeConflict, rememberRefusal } from './conflicts.ts'
import { type Core, type Write, write } from './core.ts'
import { dropDeviceSignatures } from './cross-signing.ts'
import type { Queries } from './database.ts'
import { lockPools, purgePools } from './pool-rows.ts'
import { saveKeys } from './save-keys.ts'
import { type DeviceRow, lockUser, requireDevice, toIdentity } from './session-device.ts'
import { storeKeys } from './store-keys.ts'

/** What the transaction found out that stays true although the upload is undone. */
type Finding = { refused?: RefusedTry | undefined }

export async function uploadKeys(core: Core, command: UploadCommand): Promise<UploadResult> {
  const done = await write(core, (tx) => uploadOrRefuse(core, tx, command))
  if ('refusal' in done) throw done.refusal
  done.remember()
  return done.result
}

type Uploaded = { readonly result: UploadResult; readonly remember: () => void }

/**
 * Where a refused client may come again and be right (pool/conflict.ts), the refusal is remembered under the lock of the
 * device, and the rest of the upload undone.
 */
async function uploadOrRefuse(
  core: Core,
  tx: Write,
  command: UploadCommand,
): Promise<Uploaded | { readonly refusal: unknown }> {
  const { session, deviceKeys, now } = command
  if (deviceKeys !== undefined) await lockUser(tx, session.userRef)
  const before = await requireDevice(tx, session, now)
  if (core.policy.onConflict !== 'heal') return upload(core, tx, command, before, {})
  const finding: Finding = {}
  const undo = tx.changes.checkpoint()
  await tx.run(`savepoint upload`)
  try {
    return await upload(core, tx, command, before, finding)
  } catch (error) {
    if (finding.refused === undefined) throw error
    await tx.run(`rollback to savepoint upload`)
    undo()
    await rememberRefusal(tx, session.deviceRef, finding.refused)
    return { refusal: error }
  }
}

async function upload(
  core: Core,
  tx: Write,
  command: UploadCommand,
  { device: before, pools }: Awaited<ReturnType<typeof requireDevice>>,
  finding: Finding,
): Promise<Uploaded> {
  const { session, deviceKeys, now } = command
  if (deviceKeys !== undefined && core.policy.verifySignatures) requireSignedDeviceKeys(deviceKeys, session)
  const isNew = deviceKeys !== undefined && deviceKeys.json !== before.device_keys
  const identityChanged = isNew && (await storeDeviceKeys(tx, session.deviceRef, before, deviceKeys, now))
  if (isNew) tx.changes.listChanged(before.user_num)
  const device = identityChanged ? { ...before, identity_changed: true } : before
  const stored = await storeKeys(
    core,
    tx,
    device,
    isNew ? deviceKeys.identity : toIdentity(before),
    identityChanged ? await lockPools(tx, session) : pools,
    {
      ...command,
      mayHeal: async () => core.policy.onConflict === 'heal' && (await isSecondTry(tx, command, finding)),
      alreadyStored: identityChanged ? 1 : 0,
    },
  )
  const left = stored.evicted.length > 0 || stored.healed || identityChanged
  const saved = await saveKeys(core, tx, command, device, {
    pools: stored.pools,
    day: stored.day,
    changed: stored.changed || left,
    left,
  })
  if (stored.healed || identityChanged) tx.changes.signal(session.deviceRef)
  const result = {
    outcomes: stored.outcomes,
    fallbackOutcomes: stored.fallbackOutcomes,
    storedAs: stored.storedAs,
    evicted: stored.evicted,
    ...purged(identityChanged, stored.healed),
    status: saved.status,
  }
  return { result, remember: saved.remember }
}

function purged(identityChanged: boolean, healed: boolean): Pick<UploadResult, 'purged'> {
  if (identityChanged) return { purged: 'identity_changed' }
  return healed ? { purged: 'conflict_healed' } : {}
}

async function isSecondTry(
  tx: Queries,
  { session, oneTimeKeys, now }: UploadCommand,
  finding: Finding,
): Promise<boolean> {
  const attempt = tryOf(oneTimeKeys, now)
  const kind = await judgeConflict(tx, session.deviceRef, attempt)
  if (kind === 'first') finding.refused = attempt
  return kind === 'second'
}

/** Stores changed device keys; returns whether the identity changed, in which case the pools were purged. */
async function storeDeviceKeys(
  tx: Queries,
  ref: DeviceRef,
  device: DeviceRow,
  uploaded: UploadedDeviceKeys,
  now: number,
): Promise<boolean> {
  const isGivenUp = await formerIdentities(tx, ref)
  const changed = compareIdentity(toIdentity(device), uploaded.identity, isGivenUp) === 'changed'
  if (changed) await changeIdentity(tx, ref, device, uploaded.identity, now)
  await tx.run(
    `update devices set device_keys = $2, ed25519 = $3, curve25519 = $4, identity_changed = $5 where device_num = $1`,
    ref,
    uploaded.json,
    uploaded.identity.ed25519 ?? null,
    uploaded.identity.curve25519 ?? null,
    changed || device.identity_changed,
  )
  return changed
}

/** A device gives up few identities: each costs it all its keys, and some of its daily budget. */
async function formerIdentities(
  tx: Queries,
  device: DeviceRef,
): Promise<(part: IdentityPart, key: KeyMaterial) => boolean> {
  const rows = await tx.all<{ readonly ed25519: string | null; readonly curve25519: string | null }>(
    `select ed25519, curve25519 from former_identities where device_num = $1`,
    device,
  )
  return (part, key) => rows.some((row) => row[part] === key)
}

/** Each half that is no longer the device's is given up. */
async function changeIdentity(
  tx: Queries,
  ref: DeviceRef,
  old: DeviceRow,
  current: Identity,
  now: number,
): Promise<void> {
  await purgePools(tx, [ref], now)
  await tx.run(
    `insert into former_identities (device_num, ed25519, curve25519) values ($1, $2, $3)`,
    ref,
    old.ed25519 === current.ed25519 ? null : old.ed25519,
    old.curve25519 === current.curve25519 ? null : old.curve25519,
  )
  await dropDeviceSignatures(tx, [ref])
}
