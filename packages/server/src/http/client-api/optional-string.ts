/** A string that may be absent. Some clients send null for what they have not got; it counts as absent, as peers have it. */
import { Type } from 'typebox'

export const OptionalString = Type.Optional(Type.Union([Type.String(), Type.Null()]))
