/** Opens the stored account of a key manager, or creates it in an empty store. */
import { HEALS } from '../heal/heals.ts'
import { FALLBACK_KEYS, ONE_TIME_KEYS } from '../ledger/key-record.ts'
import { LEDGER_HEAD } from '../ledger/ledger.ts'
import { SERVER_VIEW } from '../server/server-view.ts'
import { StoreError } from '../store/store.ts'
import { StoredState } from '../store/stored-state.ts'
import { type KeyManagerOptions, newAccount, requireSameDevice, settingsOf } from './options.ts'
import { ACCOUNT, INBOX, NEW_STATUS, ONLY, OPENED, PENDING, SEEN, SESSIONS, STATUS } from './records.ts'
import { Core } from './step.ts'

/** Every kind of record in a key manager's store. */
const KINDS = [
  ACCOUNT,
  STATUS,
  PENDING,
  SESSIONS,
  INBOX,
  SEEN,
  OPENED,
  ONE_TIME_KEYS,
  FALLBACK_KEYS,
  LEDGER_HEAD,
  SERVER_VIEW,
  HEALS,
]

/** Opens the store and the account in it. @throws {StoreError} when the store is unreadable, damaged or foreign */
export async function openCore(options: KeyManagerOptions): Promise<Core> {
  const { store, accounts, userId, deviceId } = options
  const state = await StoredState.open(store, KINDS)
  await state.update((transaction) => {
    const known = transaction.get(ACCOUNT, ONLY)
    if (known === undefined && transaction.generation > 0 && transaction.get(STATUS, ONLY) !== undefined) {
      throw new StoreError('corrupted', 'the store has records but no account. Restore it from a copy.')
    }
    if (known !== undefined) requireSameDevice(known, userId, deviceId)
    else transaction.put(ACCOUNT, ONLY, newAccount(options))
    if (transaction.get(STATUS, ONLY) === undefined) transaction.put(STATUS, ONLY, NEW_STATUS)
  })
  return new Core(state, accounts, settingsOf(options), options.onEvent)
}
