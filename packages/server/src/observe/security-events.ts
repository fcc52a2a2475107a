/**
 * The events of the security log, their members and meanings (issue 11, D). docs/reference/security-log.md has the same
 * table; a test compares the two. No member carries a secret: an account that does not exist is not named, because
 * people type passwords where the user name belongs.
 */

type Definition = {
  /** Members besides those of every line (security-log.ts). */
  readonly members: readonly string[]
  readonly meaning: string
}

export const SECURITY_EVENTS = {
  login: { members: ['userId', 'deviceId'], meaning: 'A device logged in with the password of its account.' },
  login_failed: {
    members: ['userId'],
    meaning: 'A login with a wrong password, or to an account that does not exist, which is not named.',
  },
  interactive_auth_failed: {
    members: ['route'],
    meaning: 'A wrong password or registration token in user-interactive authentication.',
  },
  request_limited: {
    members: ['route', 'reason'],
    meaning:
      'A request refused with 429: a limit or a budget is exceeded. `reason` is the text of the answer.',
  },
  account_registered: { members: ['userId'], meaning: 'An account was created by `/register`.' },
  account_deactivated: { members: [], meaning: 'A user deactivated their account.' },
  password_changed: {
    members: ['devicesRemoved'],
    meaning: 'A user changed their password; `devicesRemoved`: all other devices were removed.',
  },
  devices_removed: {
    members: ['devices', 'count'],
    meaning:
      'A user removed devices, or logged out; `*` means all of them. Ten IDs are listed; `count` has the total.',
  },
  cross_signing_replaced: {
    members: ['usages'],
    meaning: 'A user replaced cross-signing keys. The first upload of them is not an event.',
  },
  claim_budget_exceeded: {
    members: ['targetUserId', 'targetDeviceId', 'count'],
    meaning:
      'A user over their budget received the fallback key of a device, or no key of its reserve; `count` claims since the previous line.',
  },
  keys_evicted: {
    members: ['count'],
    meaning: 'An upload over the cap of a pool removed the oldest one-time keys of its own device.',
  },
  messages_evicted: {
    members: ['recipientUserId', 'recipientDeviceId', 'evictedUserId', 'cause', 'count', 'bytes'],
    meaning:
      'A message to a device with a full inbox evicted the oldest ones of the user with the most there, `evictedUserId`; `cause`: the limit, `bytes` or `messages`.',
  },
  heals_exceeded: {
    members: [],
    meaning: 'A conflict of a device was refused because the device had used its heals of the day.',
  },
  answer_cut_off: {
    members: ['route', 'cause'],
    meaning:
      'A client was disconnected: it took nothing of its answer (`stalled`), too little (`slow`), or too many answers were unread (`budget`).',
  },
  admin_command: {
    members: ['command', 'target'],
    meaning: 'An operator ran a command, and the account, device or token that it changed.',
  },
  events_suppressed: {
    members: ['of', 'subject', 'count'],
    meaning: '`count` more events of the kind `of` and this user or network were not written.',
  },
} as const satisfies Readonly<Record<string, Definition>>

export type SecurityEvent = keyof typeof SECURITY_EVENTS

export type SecurityValue = string | number | boolean | readonly string[]

/** The members that an event may have. */
export type SecurityDetails<Event extends SecurityEvent> = {
  readonly [Member in (typeof SECURITY_EVENTS)[Event]['members'][number]]?: SecurityValue
}
