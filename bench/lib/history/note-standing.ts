/** What an answer says of the state of its device's pools: counts, and `key_pool`. */
import type { Span } from './exchange.ts'
import type { Life } from './facts.ts'
import { asObject, type JsonObject, text } from './json.ts'

const NONE: ReadonlySet<string> = new Set()

/** `member` is where the answer has its counts; `own` are the public keys that the request itself stored and withdrew. */
export function noteStanding(
  life: Life,
  span: Span,
  answer: JsonObject,
  member: string,
  own: { readonly stored: ReadonlySet<string>; readonly withdrawn: ReadonlySet<string> } = {
    stored: NONE,
    withdrawn: NONE,
  },
): void {
  const keyPool = asObject(answer['dev.latchkey.key_pool'])
  life.device.standings.push({
    ...span,
    life,
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
