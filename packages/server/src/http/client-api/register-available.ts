/** GET /register/available: whether a user name is free. Taken and invalid names get the same error as `/register`. */
import { requireFreeName } from '../../accounts/register-account.ts'
import { missingParam } from '../../matrix-error.ts'
import { publicEndpoint } from '../endpoint.ts'
import { limitRegistration, requireRegistration } from './register.ts'

export const registerAvailable = publicEndpoint({
  method: 'GET',
  path: '/register/available',
  admit: ({ context, ip }) => limitRegistration(context, ip),
  async handle({ context, query }) {
    requireRegistration(context)
    const name = query['username']
    if (name === undefined) throw missingParam('The query lacks the parameter "username".')
    await requireFreeName({ accounts: context.store.accounts, serverName: context.serverName }, name)
    return { available: true }
  },
})
