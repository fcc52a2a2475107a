/** @latchkey/protocol: wire types and pure rules shared by server and client. No I/O, no clock. */
export * from './canonical-json.ts'
export * from './code-points.ts'
export * from './errors.ts'
export * from './extensions.ts'
export * from './identifiers.ts'
export * from './key-material.ts'
export * from './pool-digest.ts'
export * from './signatures.ts'
