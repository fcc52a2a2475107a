/** Server levels, by `unstable_features` of `/versions` (extensions.md, MSC4162). */
import { isJsonObject, type JsonObject } from '@latchkey/protocol'
import type { ServerLevel } from '../events.ts'

/** The level that an answer of `/versions` indicates. */
export function levelOf(versions: JsonObject): ServerLevel {
  const features = isJsonObject(versions['unstable_features']) ? versions['unstable_features'] : {}
  if (features['org.matrix.msc4162'] !== true) return 'bare'
  return features['dev.latchkey.key_pool'] === true ? 'latchkey' : 'msc4162'
}
