/** Makes the server appear to one device as a server without Latchkey's extensions. */
import type { AnyJson } from '@latchkey/testing/matrix-session.ts'
import { type FaultyNetwork, RESET, SYNC, UPLOAD } from './network.ts'

/** `msc4162`: reset as in the proposal. `bare`: only the specification. */
export type PlainLevel = 'msc4162' | 'bare'

export function emulate(level: PlainLevel, network: FaultyNetwork): void {
  network.rewrite('/versions', (answer) => {
    answer.unstable_features = level === 'bare' ? {} : { 'org.matrix.msc4162': true }
  })
  for (const path of [SYNC, UPLOAD, RESET]) network.rewrite(path, withoutExtensions)
  network.refuse('/keys/pool')
  if (level === 'bare') network.refuse(RESET)
}

/** Removes members that are not in the specification. */
export function withoutExtensions(answer: AnyJson): void {
  for (const member of Object.keys(answer)) if (member.startsWith('dev.latchkey.')) delete answer[member]
}
