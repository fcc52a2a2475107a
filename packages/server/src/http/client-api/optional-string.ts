/** Members that may be absent. Some clients send null instead, which is treated as absent, as on other homeservers. */
import { Type } from 'typebox'

export const OptionalString = Type.Optional(Type.Union([Type.String(), Type.Null()]))

export const OptionalBoolean = Type.Optional(Type.Union([Type.Boolean(), Type.Null()]))
