/**
 * The text form of a password hash (PHC, argon2id), with the parameters that it was made with: they can be raised
 * without locking anyone out, because each hash is checked with its own.
 */

export type HashCost = {
  /** KiB. */
  readonly memory: number
  readonly passes: number
}

export type PasswordHash = HashCost & { readonly salt: Buffer; readonly tag: Buffer }

/** OWASP's second recommendation, and the least that the configuration accepts. */
export const DEFAULT_COST: HashCost = { memory: 19_456, passes: 2 }
/** A hash that costs more is not checked: it would take the memory of the server. */
export const MAX_COST: HashCost = { memory: 262_144, passes: 16 }
const MIN_MEMORY = 8
const SALT_BYTES = { min: 8, max: 64 }
const TAG_BYTES = { min: 16, max: 64 }

const FORM = /^\$argon2id\$v=19\$m=(\d{1,7}),t=(\d{1,3}),p=1\$([A-Za-z0-9+/]+)\$([A-Za-z0-9+/]+)$/

export function formatHash({ memory, passes, salt, tag }: PasswordHash): string {
  return `$argon2id$v=19$m=${memory},t=${passes},p=1$${base64(salt)}$${base64(tag)}`
}

/** Undefined for a text of another form, or parameters out of bounds: no password belongs to it. */
export function parseHash(stored: string): PasswordHash | undefined {
  const [, memory, passes, salt = '', tag = ''] = FORM.exec(stored) ?? []
  const hash = {
    memory: Number(memory),
    passes: Number(passes),
    salt: Buffer.from(salt, 'base64'),
    tag: Buffer.from(tag, 'base64'),
  }
  const isSane =
    isWithin(hash.memory, MIN_MEMORY, MAX_COST.memory) &&
    isWithin(hash.passes, 1, MAX_COST.passes) &&
    isWithin(hash.salt.length, SALT_BYTES.min, SALT_BYTES.max) &&
    isWithin(hash.tag.length, TAG_BYTES.min, TAG_BYTES.max)
  return isSane ? hash : undefined
}

/** Whether a hash was made with less than the present cost. */
export function isCheaper(hash: HashCost, cost: HashCost): boolean {
  return hash.memory < cost.memory || hash.passes < cost.passes
}

function isWithin(value: number, min: number, max: number): boolean {
  return value >= min && value <= max
}

function base64(bytes: Buffer): string {
  return bytes.toString('base64').replaceAll('=', '')
}
