/** Makes events complete: the time, the weight, and the words. One place, so that the reference can list them. */
import type { ClientEvent, ClientEventType, EventDetails, OnEvent } from './events.ts'

type Words<Type extends ClientEventType> = {
  readonly severity: ClientEvent['severity']
  readonly cause: (details: EventDetails<Type>) => string
  readonly remedy: (details: EventDetails<Type>) => string
}

const NOTHING = (): string => ''

/** What each event says. */
export const EVENT_WORDS: { readonly [Type in ClientEventType]: Words<Type> } = {
  server: {
    severity: 'info',
    cause: ({ level, baseUrl }) => `${baseUrl} was found to be a server of level "${level}".`,
    remedy: ({ level }) =>
      level === 'bare'
        ? 'Drift shows only when an upload conflicts or a message cannot be decrypted. A server with MSC4162 can be asked to start over.'
        : '',
  },
  adopted: {
    severity: 'info',
    cause: ({ count }) =>
      `There was no ledger yet: ${count} keys that the server has were taken over as they are.`,
    remedy: NOTHING,
  },
  drift: {
    severity: 'warning',
    cause: ({ reason, keys }) =>
      `The server would issue ${keys.length} keys that this device should not have there (${reason}).`,
    remedy: () => 'Heal, or with mode "report" reset the keys by hand.',
  },
  healed: {
    severity: 'warning',
    cause: ({ reason, did }) => `Healed (${reason}): ${did}.`,
    remedy: () =>
      'Nothing now. If it comes again, look for its cause: a restored backup, two processes on one store, a store that does not keep.',
  },
  not_healed: {
    severity: 'error',
    cause: ({ reason, why }) => `Not healed (${reason}): ${why}.`,
    remedy: () =>
      'Messages to these keys cannot be decrypted. Reset the keys on the server, or log the device in anew.',
  },
  two_writers: {
    severity: 'error',
    cause: ({ heals }) =>
      `Key uploads had to be healed ${heals} times within a day: two clients write to one account.`,
    remedy: () => 'Let one process, or one tab, own the account; give others a device of their own.',
  },
  stale_count: {
    severity: 'info',
    cause: ({ told, used }) =>
      `A sync told of ${told ?? 'no'} keys, which is old or wrong; ${used} was used.`,
    remedy: NOTHING,
  },
  flood: {
    severity: 'warning',
    cause: ({ keys, published }) =>
      `${keys} more keys were about to be published beside ${published}; they were kept from the server.`,
    remedy: () =>
      'Update the SDK if it uploads keys although enough are there. If the server asks for so many, it miscounts, or keys are drained by claims.',
  },
  key_named_twice: {
    severity: 'warning',
    cause: ({ key, senders }) => `Two sessions named the one-time key ${key} (${senders.join(', ')}).`,
    remedy: () =>
      'Either the server issued it twice, or one of the messages is forged. One of the two cannot be decrypted.',
  },
  undecryptable: {
    severity: 'warning',
    cause: ({ sender, verdict, key }) =>
      `A message of ${sender} could not be decrypted: ${verdict}${key === undefined ? '' : ` (${key})`}.`,
    remedy: () => 'Start a new session with the sender: write to them, or ask them to write again.',
  },
  identity_changed: {
    severity: 'error',
    cause: () => "The device's identity keys are not those it had before.",
    remedy: () => 'The crypto store was lost under an old device ID. Log in as a new device.',
  },
  device_dead: {
    severity: 'error',
    cause: ({ why }) => `This account cannot be used any more: ${why}.`,
    remedy: () => 'Log out, delete the store, and log in as a new device.',
  },
  key_dropped: {
    severity: 'warning',
    cause: ({ key }) =>
      `The private half of ${key} was given up to make room; it had been issued the longest.`,
    remedy: () =>
      'A message that still comes for it is lost. Many claims that are never used point to a claimer that drains keys.',
  },
  sessions_dropped: {
    severity: 'warning',
    cause: ({ sender, count }) =>
      `${count} sessions of ${sender}, who had the most, were given up: there is room for so many only.`,
    remedy: () => 'If nobody should have so many, the sender floods this device: block them.',
  },
  generation_limited: {
    severity: 'warning',
    cause: ({ generated, perDay }) =>
      `${generated} new keys within a day, the limit is ${perDay}: no more for now.`,
    remedy: () =>
      'The fallback key serves meanwhile. Either the keys are drained by claims, or the server miscounts.',
  },
  fallback_rotated: {
    severity: 'info',
    cause: ({ key, why }) => `A new fallback key ${key} was published (${why}).`,
    remedy: NOTHING,
  },
  not_compared: {
    severity: 'warning',
    cause: ({ error }) =>
      `The server's pool could not be read, so it is not known whether it fits the ledger: ${error}`,
    remedy: () => 'Nothing if it passes: it is read again in a minute.',
  },
  unguarded: {
    severity: 'error',
    cause: ({ error }) => `Requests pass unguarded: ${error}`,
    remedy: () => 'If the error is one of the store, repair or replace it as it says. Nothing if it passes.',
  },
}

/** Tells a listener of an event. Its exceptions are its own. */
export function emit<Type extends ClientEventType>(
  onEvent: OnEvent | undefined,
  at: number,
  type: Type,
  details: EventDetails<Type>,
): void {
  if (onEvent === undefined) return
  const { severity, cause, remedy } = EVENT_WORDS[type]
  const event = { type, at, severity, cause: cause(details), remedy: remedy(details), ...details }
  try {
    onEvent(event as ClientEvent)
  } catch {
    // A listener's fault must not change what happens to keys.
  }
}
