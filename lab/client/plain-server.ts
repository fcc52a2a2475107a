/** Makes the server look, through one device's network, like one that has less to offer than Latchkey. */
import type { AnyJson } from '@latchkey/testing/matrix-session.ts'
import { type FaultyNetwork, RESET, SYNC, UPLOAD } from './network.ts'

/** `msc4162`: reset as the proposal has it. `bare`: the specification alone. */
export type PlainLevel = 'msc4162' | 'bare'

export function showAs(level: PlainLevel, network: FaultyNetwork): void {
  network.rewrite('/versions', (answer) => {
    answer.unstable_features = level === 'bare' ? {} : { 'org.matrix.msc4162': true }
  })
  for (const path of [SYNC, UPLOAD, RESET]) network.rewrite(path, withoutExtensions)
  network.refuse('/keys/pool')
  if (level === 'bare') network.refuse(RESET)
}

/** Leaves what the specification knows. */
export function withoutExtensions(answer: AnyJson): void {
  for (const member of Object.keys(answer)) if (member.startsWith('dev.latchkey.')) delete answer[member]
}
