/**
 * JSON text that is equal for equal values, in whichever order their members are. Unlike canonical JSON it takes any
 * number.
 */
import { compareCodePoints, isJsonObject, type Json } from '@latchkey/protocol'

export function stableText(value: Json): string {
  return JSON.stringify(value, (_key, member: Json) =>
    isJsonObject(member)
      ? Object.fromEntries(Object.entries(member).sort(([a], [b]) => compareCodePoints(a, b)))
      : member,
  )
}
