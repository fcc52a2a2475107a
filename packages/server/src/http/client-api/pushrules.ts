/** GET /pushrules (client-server API, "Push rules"): always the empty set, because there are no rooms. */
import { endpoint } from '../endpoint.ts'

const RULES = { override: [], content: [], room: [], sender: [], underride: [] } as const

const all = endpoint({ method: 'GET', path: '/pushrules/', handle: () => ({ global: RULES }) })
const global = endpoint({ method: 'GET', path: '/pushrules/global/', handle: () => RULES })

/** The specification's paths end in a slash; other homeservers also accept them without. */
export const pushRules = [
  all,
  { ...all, path: '/pushrules' },
  global,
  { ...global, path: '/pushrules/global' },
]
