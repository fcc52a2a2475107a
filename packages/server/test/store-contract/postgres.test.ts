/** The contract suite against PostgreSQL. `npm run test:postgres` starts a server for it; without one it is skipped. */
import { test } from 'node:test'
import { testAdmin } from './admin.ts'
import { testAuthSessions } from './auth-sessions.ts'
import { testConcurrentClaims } from './concurrent-claims.ts'
import { testDailyBudgets } from './daily-budgets.ts'
import { testDepletion } from './depletion.ts'
import { testEndedSession } from './ended-session.ts'
import { testFloods } from './floods.ts'
import { testKnownNetworks } from './known-networks.ts'
import { testPoolAgainstModel } from './pool-against-model.ts'
import { testPoolOrder } from './pool-order.ts'
import { postgres } from './postgres-store.ts'
import { testRooms } from './rooms.ts'
import { testSyncPages } from './sync-pages.ts'
import { testSeveralStores } from './several-stores.ts'

if (process.env['LATCHKEY_TEST_POSTGRES']) {
  testPoolAgainstModel(postgres)
  testPoolOrder(postgres)
  testConcurrentClaims(postgres)
  testDepletion(postgres)
  testDailyBudgets(postgres)
  testEndedSession(postgres)
  testFloods(postgres)
  testAuthSessions(postgres)
  testKnownNetworks(postgres)
  testAdmin(postgres)
  testRooms(postgres)
  testSyncPages(postgres)
  testSeveralStores()
} else {
  test('the contract suite against PostgreSQL', {
    skip: 'LATCHKEY_TEST_POSTGRES names no server; "npm run test:postgres" starts one',
  })
}
