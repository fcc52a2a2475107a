/** GET /versions: supported versions and unstable features. A token is optional (MSC4026). */
import { UNSTABLE_FEATURES } from '@latchkey/protocol'
import { publicEndpoint } from '../endpoint.ts'

/**
 * v1.13 added the order of one-time keys (MSC4225); v1.17 is the newest version that the key endpoints were tested
 * against.
 */
const VERSIONS = ['r0.6.1', ...Array.from({ length: 17 }, (_, i) => `v1.${i + 1}`)]

export const versions = publicEndpoint({
  method: 'GET',
  path: '/_matrix/client/versions',
  handle: () => ({ versions: VERSIONS, unstable_features: UNSTABLE_FEATURES }),
})
