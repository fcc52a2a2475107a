/** GET /versions: what the server speaks. Needs no token; one is accepted (MSC4026). */
import { UNSTABLE_FEATURES } from '@latchkey/protocol'
import { publicEndpoint } from '../endpoint.ts'

/** v1.13 brought the order of one-time keys (MSC4225); v1.17 is the newest whose key endpoints were checked against this. */
const VERSIONS = ['r0.6.1', ...Array.from({ length: 17 }, (_, i) => `v1.${i + 1}`)]

export const versions = publicEndpoint({
  method: 'GET',
  path: '/_matrix/client/versions',
  handle: () => ({ versions: VERSIONS, unstable_features: UNSTABLE_FEATURES }),
})
