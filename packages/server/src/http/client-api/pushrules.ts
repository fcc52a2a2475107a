/** GET /pushrules (client-server API, "Push rules"): the empty set. There are no rooms that could notify anybody. */
import { endpoint } from '../endpoint.ts'

const RULES = { override: [], content: [], room: [], sender: [], underride: [] } as const

const all = endpoint({ method: 'GET', path: '/pushrules/', handle: () => ({ global: RULES }) })
const global = endpoint({ method: 'GET', path: '/pushrules/global/', handle: () => RULES })

/** The specification's paths end in a slash; peers answer without it too. */
export const pushRules = [
  all,
  { ...all, path: '/pushrules' },
  global,
  { ...global, path: '/pushrules/global' },
]
