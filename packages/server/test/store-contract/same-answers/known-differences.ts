/**
 * Differences that the two stores once had. SAME_ANSWERS_MASK names those to ignore, separated by commas; the default
 * is none. On stores that have one of them, the directed histories fail unless it is among those ignored.
 */
import type { AnyJson } from '@latchkey/testing/test-server.ts'
import type { Answer, Both } from './server-pair.ts'
import type { Step } from './steps.ts'

/** A request whose answers differ, and the earlier requests of the history. */
export type Situation = {
  readonly step: Step['do']
  readonly path: string
  readonly restarted: boolean
  readonly elapsedMs: number
  /** The statuses of earlier uploads. */
  readonly uploads: ReadonlySet<number>
}

type KnownDifference = {
  /** Removes the parts of an answer that may differ. */
  readonly hide?: (answer: Answer) => Answer
  /** Whether this difference explains the answers to one request; the rest of the history is then not compared. */
  readonly explains?: (answers: Both<Answer>, situation: Situation) => boolean
}

const DAY_MS = 86_400_000

const KNOWN = {
  /** Increment of `version` per change. */
  version: {
    hide: ({ status, body }) => ({ status, body: rewrite(body, hideVersion) }),
    explains: ({ sqlite, postgres }, { step }) =>
      step === 'reset' && (sqlite.status === 409 || postgres.status === 409),
  },
  /** The error reported when several reasons apply. */
  'order-of-checks': {
    explains: ({ sqlite, postgres }) =>
      sqlite.status >= 400 && sqlite.status < 500 && postgres.status >= 400 && postgres.status < 500,
  },
  /** Number of keys back within which a reused key ID is found. */
  'id_reused-lookback': {
    hide: ({ status, body }) => ({
      status,
      body: rewrite(body, (_, member) => (member === 'id_reused' ? 'stored' : member)),
    }),
  },
  /** Whether a reset is charged again when it runs again because another operation of its batch failed. */
  'reset-charged': {},
  /** Whether a server remembers a refused upload after a restart. */
  'refusal-memory': {
    explains: (answers, { step, restarted }) =>
      restarted && step === 'upload' && haveStatuses(answers, 200, 400),
  },
  /** Whether a refused upload is still remembered after its second try was refused for another reason. */
  'refusal-after-failed-heal': {
    explains: (answers, { step, uploads }) =>
      uploads.has(429) && step === 'upload' && haveStatuses(answers, 200, 400),
  },
  /** The order of issued keys of several algorithms over the pages of `keys/pool`. */
  'issued-pages': {
    explains: (_, { step, path }) => step === 'pool' && !path.includes('limit=1000'),
  },
  /** Whether a transaction ID is forgotten after a day. */
  'expired-transaction': {
    explains: (_, { step, elapsedMs }) => step === 'sync' && elapsedMs > DAY_MS,
  },
} as const satisfies Record<string, KnownDifference>

export type DifferenceName = keyof typeof KNOWN

const maskedNames = (process.env['SAME_ANSWERS_MASK'] ?? '').split(',').filter((name) => name !== '')
const unknown = maskedNames.find((name) => !Object.hasOwn(KNOWN, name))
if (unknown !== undefined) throw new Error(`SAME_ANSWERS_MASK: ${unknown} is not a known difference`)

export function isMasked(name: DifferenceName): boolean {
  return maskedNames.includes(name)
}

export const MASKED: readonly KnownDifference[] = Object.entries<KnownDifference>(KNOWN)
  .filter(([name]) => maskedNames.includes(name))
  .map(([, difference]) => difference)

function haveStatuses({ sqlite, postgres }: Both<Answer>, one: number, other: number): boolean {
  const statuses = new Set([sqlite.status, postgres.status])
  return statuses.size === 2 && statuses.has(one) && statuses.has(other)
}

function hideVersion(name: string, member: AnyJson): AnyJson {
  if (name === 'version') return '(masked)'
  return typeof member === 'string' ? member.replace(/version \d+, found \d+/, 'version') : member
}

function rewrite(value: AnyJson, member: (name: string, value: AnyJson) => AnyJson): AnyJson {
  if (Array.isArray(value)) return value.map((element) => rewrite(element, member))
  if (typeof value !== 'object' || value === null) return value
  const entries = Object.entries(value).map(([name, inner]) => [name, rewrite(member(name, inner), member)])
  return Object.fromEntries(entries)
}
