/** JSON Schemas of Latchkey's additions to Matrix; extensions.md describes them. */

const digest = { type: 'string', pattern: '^[A-Za-z0-9_-]{43}$' }
const whole = { type: 'integer', minimum: 0 }
const keyName = { type: 'string', pattern: '^[^:]+:[^:]+$' }
const mapOf = (value: object, names: object = {}): object => ({
  type: 'object',
  propertyNames: names,
  additionalProperties: value,
})

function closed(properties: Record<string, object>, optional: readonly string[] = []): object {
  const required = Object.keys(properties).filter((name) => !optional.includes(name))
  return { type: 'object', additionalProperties: false, required, properties }
}

const keyPool = closed({
  epoch: { type: 'string', minLength: 1 },
  version: whole,
  generation: whole,
  digest: { ...mapOf(digest), required: ['signed_curve25519'] },
  fallback: mapOf(digest),
})

const outcomes = {
  'dev.latchkey.outcomes': mapOf(
    {
      enum: [
        'stored',
        'id_reused',
        'already_stored',
        'already_issued',
        'already_removed',
        'in_use_elsewhere',
      ],
    },
    keyName,
  ),
  'dev.latchkey.fallback_outcomes': mapOf(
    { enum: ['stored', 'already_stored', 'already_replaced', 'in_use_elsewhere'] },
    keyName,
  ),
  'dev.latchkey.stored_as': mapOf(keyName, keyName),
  'dev.latchkey.evicted': { type: 'array', items: keyName },
  'dev.latchkey.key_pool': keyPool,
}

export const UPLOAD_ANSWER = closed({ one_time_key_counts: mapOf(whole), ...outcomes })

export const RESET_ANSWER = closed({
  device_one_time_keys_count: mapOf(whole),
  'dev.latchkey.withdrawn': { type: 'array', items: keyName, uniqueItems: true },
  'dev.latchkey.absent': { type: 'array', items: keyName, uniqueItems: true },
  ...outcomes,
})

export const POOL_CHANGED = closed({
  errcode: { const: 'DEV.LATCHKEY.M_POOL_CHANGED' },
  error: { type: 'string' },
  'dev.latchkey.key_pool': keyPool,
})

export const CONFLICT = closed({
  errcode: { const: 'io.github.johennes.msc4420.M_DUPLICATE_ONE_TIME_KEY' },
  error: { type: 'string', pattern: '^One time key .* already exists\\. Old key: .*; new key: ' },
  'dev.latchkey.conflicts': mapOf(
    closed({ stored_key: { type: 'string' }, uploaded_key: { type: 'string' } }),
    keyName,
  ),
})

const key = { key_id: { type: 'string' }, key_hash: digest }

export const POOL_ANSWER = closed(
  {
    epoch: { type: 'string', minLength: 1 },
    version: whole,
    generation: whole,
    algorithms: mapOf(
      closed(
        {
          count: whole,
          digest,
          available: { type: 'array', items: closed({ ...key, uploaded_ts: whole }) },
          issued: { type: 'array', items: closed({ ...key, issued_ts: whole }) },
          fallback: closed({ ...key, used: { type: 'boolean' }, issue_count: whole }),
        },
        ['fallback'],
      ),
    ),
    next_batch: { type: 'string' },
  },
  ['next_batch'],
)

export const SYNC_KEY_POOL = {
  type: 'object',
  required: ['dev.latchkey.key_pool', 'device_one_time_keys_count', 'device_unused_fallback_key_types'],
  properties: {
    'dev.latchkey.key_pool': keyPool,
    device_one_time_keys_count: { ...mapOf(whole), required: ['signed_curve25519'] },
    device_unused_fallback_key_types: { type: 'array', items: { type: 'string' } },
  },
}
