/**
 * POST /keys/device_signing/upload (client-server API, "Cross-signing"; MSC3967). The first upload, and a repeated
 * upload of the same keys, need only the access token; any other change needs the password.
 */
import type { JsonObject } from '@latchkey/protocol'
import { Type } from 'typebox'
import { changedCrossSigning } from '../../devices/cross-signing.ts'
import { endpoint, largeBody } from '../endpoint.ts'
import { asObject } from './decode-keys.ts'

const Key = Type.Optional(Type.Object({}))

export const deviceSigningUpload = endpoint({
  method: 'POST',
  path: '/keys/device_signing/upload',
  versions: ['v3', 'unstable'],
  bodyBytes: largeBody,
  interactive: true,
  body: Type.Object({
    master_key: Key,
    self_signing_key: Key,
    user_signing_key: Key,
    auth: Type.Optional(Type.Unknown()),
  }),
  async handle({ context, session, body, confirm, origin }) {
    const { devices } = context.store
    const published = (await devices.published([session.userId], session.userRef)).get(session.userId)
    if (published === undefined) throw new Error('the user of a session does not exist')
    const uploaded = {
      ...member('master', body.master_key),
      ...member('self_signing', body.self_signing_key),
      ...member('user_signing', body.user_signing_key),
    }
    const changed = changedCrossSigning(session.userId, uploaded, published)
    if (changed.keys.length === 0) return {}
    const master = published.crossSigning.find((key) => key.usage === 'master')
    const proof = master && (await confirm(['m.login.password']))
    await devices.putCrossSigning(session, changed, master?.publicKey, proof?.finishing({}).finishes)
    if (master !== undefined) {
      const usages = changed.keys.map(({ usage }) => usage)
      context.securityLog.note('cross_signing_replaced', origin, { usages })
    }
    return {}
  },
})

function member(usage: string, key: object | undefined): Record<string, JsonObject> {
  return key === undefined ? {} : { [usage]: asObject(key) }
}
