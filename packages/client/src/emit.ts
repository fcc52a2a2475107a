/** Completes events with time, severity and texts. All texts are in this file, so that the reference can list them. */
import type { ClientEvent, ClientEventType, EventDetails, OnEvent } from './events.ts'

type Texts<Type extends ClientEventType> = {
  readonly severity: ClientEvent['severity']
  readonly message: (details: EventDetails<Type>) => string
  readonly remedy: (details: EventDetails<Type>) => string
}

const NOTHING = (): string => ''

/** Severity and texts of each event. */
export const EVENT_TEXTS: { readonly [Type in ClientEventType]: Texts<Type> } = {
  server: {
    severity: 'info',
    message: ({ level, baseUrl }) => `${baseUrl} is a server of level "${level}".`,
    remedy: ({ level }) =>
      level === 'bare'
        ? 'Drift is noticed only when an upload conflicts or a message cannot be decrypted. MSC4162 adds a key reset.'
        : '',
  },
  adopted: {
    severity: 'info',
    message: ({ count }) => `There was no ledger yet: ${count} keys on the server were adopted.`,
    remedy: NOTHING,
  },
  drift: {
    severity: 'warning',
    message: ({ cause, keys }) =>
      `The server may issue ${keys.length} keys that this device should not have there (${cause}).`,
    remedy: () => 'Mode "heal" withdraws them; in mode "report" reset the keys manually.',
  },
  healed: {
    severity: 'warning',
    message: ({ cause, detail }) => `Healed (${cause}): ${detail}.`,
    remedy: () =>
      'None now. If it recurs, find out why: a restored backup, two processes on one store, a store that loses data.',
  },
  not_healed: {
    severity: 'error',
    message: ({ cause, detail }) => `Not healed (${cause}): ${detail}.`,
    remedy: () =>
      'Messages to these keys cannot be decrypted. Reset the keys on the server, or log in as a new device.',
  },
  two_writers: {
    severity: 'error',
    message: ({ heals }) =>
      `Key uploads were healed ${heals} times within a day: two clients use one account.`,
    remedy: () => 'Let one process, or one tab, use the account; give the others their own devices.',
  },
  stale_count: {
    severity: 'info',
    message: ({ received, used }) =>
      `A sync reported ${received ?? 'no'} keys, which is stale or wrong; ${used} was used.`,
    remedy: NOTHING,
  },
  upload_limited: {
    severity: 'warning',
    message: ({ keys, published }) => `${keys} new keys were withheld; ${published} are already published.`,
    remedy: () =>
      'Update the SDK if it uploads more keys than needed. Otherwise the server miscounts, or claims drain the keys.',
  },
  key_seen_twice: {
    severity: 'warning',
    message: ({ key, senders }) => `Two sessions used the one-time key ${key} (${senders.join(', ')}).`,
    remedy: () =>
      'The server issued it twice, or one of the messages is forged. One of them cannot be decrypted.',
  },
  undecryptable: {
    severity: 'warning',
    message: ({ sender, verdict, key }) =>
      `A message from ${sender} could not be decrypted: ${verdict}${key === undefined ? '' : ` (${key})`}.`,
    remedy: () =>
      'Start a new session with the sender: send them a message, or ask them to send another one.',
  },
  identity_changed: {
    severity: 'error',
    message: () => "The device's identity keys have changed.",
    remedy: () => 'The crypto store was lost under an existing device ID. Log in as a new device.',
  },
  account_unusable: {
    severity: 'error',
    message: ({ detail }) => `This account cannot be used any more: ${detail}.`,
    remedy: () => 'Log out, delete the store, and log in as a new device.',
  },
  key_dropped: {
    severity: 'warning',
    message: ({ key }) => `The private half of ${key}, issued longest ago, was dropped to free a slot.`,
    remedy: () =>
      'A message that still uses it cannot be decrypted. Many unused claims indicate a client that drains keys.',
  },
  sessions_dropped: {
    severity: 'warning',
    message: ({ sender, count }) =>
      `${count} sessions of ${sender}, who had the most, were dropped: the session limit was reached.`,
    remedy: () => 'If the sender should not have so many sessions, they flood this device: block them.',
  },
  generation_limited: {
    severity: 'warning',
    message: ({ generated, perDay }) =>
      `${generated} new keys within a day; the limit of ${perDay} is reached.`,
    remedy: () =>
      'The fallback key serves until keys are allowed again. Claims drain the keys, or the server miscounts.',
  },
  fallback_rotated: {
    severity: 'info',
    message: ({ key, trigger }) => `A new fallback key ${key} was published (${trigger}).`,
    remedy: NOTHING,
  },
  pool_unreadable: {
    severity: 'warning',
    message: ({ error }) => `The server's pool could not be read and compared with the ledger: ${error}`,
    remedy: () => 'None if it is temporary: the pool is read again in a minute.',
  },
  unguarded: {
    severity: 'error',
    message: ({ error }) => `Requests pass unguarded: ${error}`,
    remedy: () =>
      'If the store failed, repair or replace it as the error says. None if the error is temporary.',
  },
}

/** Passes an event to the listener. Exceptions of the listener are ignored. */
export function emit<Type extends ClientEventType>(
  onEvent: OnEvent | undefined,
  at: number,
  type: Type,
  details: EventDetails<Type>,
): void {
  if (onEvent === undefined) return
  const { severity, message, remedy } = EVENT_TEXTS[type]
  const event = { type, at, severity, message: message(details), remedy: remedy(details), ...details }
  try {
    onEvent(event as ClientEvent)
  } catch {
    // A faulty listener must not affect key handling.
  }
}
