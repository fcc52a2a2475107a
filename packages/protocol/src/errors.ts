/** The error codes Latchkey answers with. docs/reference/errors.md holds the same table; a test compares the two. */
export const ERRCODES = {
  M_BAD_JSON: 'The body is JSON but not of the form the endpoint expects; the text names the member.',
  M_FORBIDDEN: 'Wrong credentials, or an action that this account is not permitted to do.',
  M_GUEST_ACCESS_FORBIDDEN: 'Guest accounts are not supported.',
  M_INVALID_PARAM: 'A parameter has a value that cannot be used; the text names it.',
  M_INVALID_SIGNATURE: 'A required signature does not verify.',
  M_INVALID_USERNAME: 'The user name has characters outside the grammar, or is too long.',
  M_LIMIT_EXCEEDED: 'Too many requests; `retry_after_ms` is the time to wait before a retry.',
  M_MISSING_PARAM: 'A required parameter is missing; the text names it.',
  M_MISSING_TOKEN: 'No access token in the request.',
  M_NOT_FOUND: 'The requested object does not exist.',
  M_NOT_JSON: 'The body is not JSON, or not UTF-8.',
  M_TOO_LARGE: 'The body, or a part of it, is over a size limit; the text names the limit.',
  M_UNKNOWN: 'An internal error of the server, or of its storage; it was logged.',
  M_UNKNOWN_TOKEN: 'The access token is unknown, or no longer valid.',
  M_UNRECOGNIZED: 'Unknown endpoint (404), or unsupported method (405).',
  M_USER_DEACTIVATED: 'The account was deactivated by its user or the operator.',
  M_USER_IN_USE: 'The user name is taken.',
  M_USER_LOCKED: 'The operator has locked the account; `soft_logout` is true, and only logout is allowed.',
  M_WEAK_PASSWORD: 'The password is shorter than this server allows.',
  'DEV.LATCHKEY.M_POOL_CHANGED':
    'A precondition of `/keys/reset` does not hold; the answer includes the current `key_pool`.',
  'io.github.johennes.msc4420.M_DUPLICATE_ONE_TIME_KEY':
    'An uploaded key ID is available on the server with other key material; nothing of the request was stored.',
} as const

export type Errcode = keyof typeof ERRCODES
