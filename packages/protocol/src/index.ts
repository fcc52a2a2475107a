/** @latchkey/protocol: wire types and pure rules that server and client share. No I/O, no clock. */
export * from './canonical-json.ts'
export * from './code-points.ts'
export * from './errors.ts'
export * from './extensions.ts'
export * from './identifiers.ts'
export * from './key-material.ts'
export * from './pool-digest.ts'
export * from './signatures.ts'
