/**
 * The conflicts that were answered 400 lately, by device (pool/conflict.ts): in the database, because a client's second try
 * may come to another process. A refused request stores nothing but this.
 */
import { judgeTry, type RefusedTry } from '../../pool/conflict.ts'
import type { DeviceRef } from '../../session.ts'
import type { Queries } from './database.ts'

/** What a conflicting upload is; forgets the first try when this is the second. The device is locked. */
export async function judgeConflict(
  tx: Queries,
  device: DeviceRef,
  attempt: RefusedTry,
): Promise<ReturnType<typeof judgeTry>> {
  const remembered = await tx.one<RefusedTry>(
    `select materials, ts from conflicts where device_num = $1`,
    device,
  )
  const kind = judgeTry(remembered, attempt)
  if (kind === 'second') await tx.run(`delete from conflicts where device_num = $1`, device)
  return kind
}

/** The device is locked. */
export async function rememberRefusal(tx: Queries, device: DeviceRef, refused: RefusedTry): Promise<void> {
  await tx.run(
    `insert into conflicts (device_num, materials, ts) values ($1, $2, $3)
     on conflict (device_num) do update set materials = excluded.materials, ts = excluded.ts`,
    device,
    refused.materials,
    refused.ts,
  )
}
