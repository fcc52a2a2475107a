/**
 * Differences that the two stores once had. SAME_ANSWERS_MASK names those that a run ignores, separated by commas; by
 * default it ignores none. With all but one ignored, the directed histories fail on stores that have this one.
 */
import type { AnyJson } from '@latchkey/testing/test-server.ts'
import type { Answer, Both } from './server-pair.ts'
import type { Step } from './steps.ts'

/** A request whose answers differ, and what came before it in the history. */
export type Situation = {
  readonly step: Step['do']
  readonly path: string
  readonly restarted: boolean
  readonly elapsedMs: number
  /** The statuses of earlier uploads. */
  readonly uploads: ReadonlySet<number>
}

type KnownDifference = {
  /** Takes out of an answer what may differ. */
  readonly hide?: (answer: Answer) => Answer
  /** Different answers to one request that this difference explains; what follows is then not compared. */
  readonly explains?: (answers: Both<Answer>, situation: Situation) => boolean
}

const DAY_MS = 86_400_000

const KNOWN = {
  /** How far one change moves `version`. */
  version: {
    hide: ({ status, body }) => ({ status, body: rewrite(body, hideVersion) }),
    explains: ({ sqlite, postgres }, { step }) =>
      step === 'reset' && (sqlite.status === 409 || postgres.status === 409),
  },
  /** Which of several reasons to refuse a request is the answer. */
  'order-of-checks': {
    explains: ({ sqlite, postgres }) =>
      sqlite.status >= 400 && sqlite.status < 500 && postgres.status >= 400 && postgres.status < 500,
  },
  /** How many keys back an issued key of the same ID is looked for. */
  'id_reused-lookback': {
    hide: ({ status, body }) => ({
      status,
      body: rewrite(body, (_, member) => (member === 'id_reused' ? 'stored' : member)),
    }),
  },
  /** Whether a reset that runs again, because another operation of its batch failed, is charged again. */
  'reset-charged': {},
  /** Whether a refused upload is remembered by a server that was restarted. */
  'refusal-memory': {
    explains: (answers, { step, restarted }) =>
      restarted && step === 'upload' && haveStatuses(answers, 200, 400),
  },
  /** Whether a refused upload is still remembered when its second try was refused for another reason. */
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
