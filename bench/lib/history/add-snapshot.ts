/** Records the state of a device's pools from an answer: counts and `key_pool`. */
import type { Span } from './exchange.ts'
import type { Session } from './facts.ts'
import { asObject, type JsonObject, text } from './json.ts'

const NONE: ReadonlySet<string> = new Set()

/** `member` names the answer's counts; `own` has the public keys that the request itself stored and withdrew. */
export function addSnapshot(
  session: Session,
  span: Span,
  answer: JsonObject,
  member: string,
  own: { readonly stored: ReadonlySet<string>; readonly withdrawn: ReadonlySet<string> } = {
    stored: NONE,
    withdrawn: NONE,
  },
): void {
  const keyPool = asObject(answer['dev.latchkey.key_pool'])
  session.device.snapshots.push({
    ...span,
    session,
    ...own,
    counts: new Map(Object.entries(asObject(answer[member])).map(([name, count]) => [name, Number(count)])),
    epoch: text(keyPool['epoch']),
    version: Number(keyPool['version']),
    generation: Number(keyPool['generation']),
    digest: new Map(
      Object.entries(asObject(keyPool['digest'])).flatMap(([name, value]) =>
        typeof value === 'string' ? [[name, value] as const] : [],
      ),
    ),
  })
}
