/** The administration commands about registration tokens. A token is named by itself, or by the ID that a list has. */
import { Type } from 'typebox'
import { hashToken } from '../accounts/access-token.ts'
import { createRegistrationToken, idOfHash, registrationTokenId } from '../accounts/registration-token.ts'
import { isUsable } from '../accounts/registration.ts'
import { adminCommand } from './command.ts'
import { nextOf, PageInput } from './page.ts'

/** Larger numbers are not exact in a database, and could not be read again. */
const Whole = Type.Integer({ minimum: 0, maximum: Number.MAX_SAFE_INTEGER })
const ID_LENGTH = registrationTokenId('').length

export const TOKEN_COMMANDS = {
  'registration-token create': adminCommand({
    input: Type.Object({ usesAllowed: Type.Optional(Whole), expiresTs: Type.Optional(Whole) }),
    async run(deps, limits) {
      const token = await createRegistrationToken(deps, limits)
      const id = registrationTokenId(token)
      return { output: { token, id }, changed: id }
    },
  }),
  'registration-token list': adminCommand({
    input: PageInput,
    async run({ admin, now }, { after, limit }) {
      const entries = await admin.registrationTokens({ after, limit })
      const tokens = entries.map((token) => ({
        id: idOfHash(token.tokenHash),
        usable: isUsable(token, now()),
        uses: token.uses,
        usesAllowed: token.usesAllowed ?? null,
        expiresTs: token.expiresTs ?? null,
        createdTs: token.createdTs,
      }))
      return { output: { tokens, next: nextOf(entries, limit, ({ tokenHash }) => tokenHash) } }
    },
  }),
  'registration-token revoke': adminCommand({
    input: Type.Object({ token: Type.String({ minLength: ID_LENGTH, maxLength: 255 }) }),
    async run({ admin }, { token }) {
      const whole = await admin.revokeRegistrationTokens(hashToken(token))
      const revoked =
        whole.length > 0 || token.length > ID_LENGTH ? whole : await admin.revokeRegistrationTokens(token)
      const ids = revoked.map(idOfHash)
      return { output: { revoked: ids }, ...(ids.length > 0 && { changed: ids.join(' ') }) }
    },
  }),
} as const
