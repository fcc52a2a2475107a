/**
 * Deactivation of an account (client-server API, "Account deactivation"), by its user or by the operator. Its devices
 * end (devices/remove.ts), and everything in `DELETED_WITH_ACCOUNT`. The account's row stays without a password: its
 * name is never given again, because others know the former user by it.
 */

/** Deleted with an account, besides its devices. Observers of it stay, and learn that its devices were removed. */
export const DELETED_WITH_ACCOUNT = [
  'cross_signing_keys',
  'signatures_on_its_keys',
  'signatures_by_it',
  'filters',
  'account_data',
  'tracked_users',
  'awaited_users',
  'auth_sessions',
  'known_networks',
] as const
export type DeletedWithAccount = (typeof DELETED_WITH_ACCOUNT)[number]

/** The password hash of a deactivated account: no password has it. */
export const NO_PASSWORD = ''
