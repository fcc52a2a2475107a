/**
 * The order of the witness's places (config/witness-places.ts), and the place that a store uses
 * (store/witness-place.ts).
 */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, suite, test } from 'node:test'
import { DEFAULT_CONFIG, storeOptions } from '../../src/config/config.ts'
import { witnessPlaces } from '../../src/config/witness-places.ts'
import type { FenceEvent } from '../../src/fence/events.ts'
import { openSqliteStore } from '../../src/store/sqlite/index.ts'
import type { WitnessPlace } from '../../src/store/witness-place.ts'
import { login } from '../store-contract/test-device.ts'
import { kindsOf, NOW } from '../support/store-calls.ts'

const root = mkdtempSync(join(tmpdir(), 'latchkey-places-'))
after(() => rmSync(root, { recursive: true, force: true }))

function newDirectory(): string {
  return mkdtempSync(join(root, 'd-'))
}

suite('the default place of a new witness', () => {
  const home = newDirectory()
  const dataDir = newDirectory()
  const xdg = join(home, '.local/state/latchkey')

  test('is fence_dir if it is set, and nothing else is searched', () => {
    const places = witnessPlaces(
      { fenceDir: '/fence', dataDir },
      { HOME: home, STATE_DIRECTORY: '/state' },
      false,
    )
    assert.deepEqual(places, { directory: '/fence', searched: [], isWithData: false })
  })

  test("is systemd's state directory, unless that has the data", () => {
    const environment = { HOME: home, STATE_DIRECTORY: `${dataDir}:/var/lib/other` }
    assert.deepEqual(witnessPlaces({ dataDir }, environment, false), {
      directory: '/var/lib/other',
      searched: ['/var/lib/other', xdg, dataDir],
      isWithData: false,
    })
    assert.equal(witnessPlaces({ dataDir }, { HOME: home, STATE_DIRECTORY: dataDir }, false).directory, xdg)
  })

  test('is the XDG state directory of a user with a home directory', () => {
    assert.equal(witnessPlaces({ dataDir }, { HOME: home }, false).directory, xdg)
    const state = newDirectory()
    const environment = { HOME: home, XDG_STATE_HOME: state }
    assert.equal(witnessPlaces({ dataDir }, environment, false).directory, join(state, 'latchkey'))
  })

  test('is the data directory in a container, without a home directory, or if that has the state directory', () => {
    const withData = { directory: dataDir, isWithData: true }
    const { searched, ...container } = witnessPlaces({ dataDir }, { HOME: home }, true)
    assert.deepEqual(container, withData)
    assert.deepEqual(searched, [xdg, dataDir])
    for (const environment of [{}, { HOME: '/nonexistent' }, { HOME: 'relative' }, { HOME: dataDir }]) {
      const { searched: places, ...found } = witnessPlaces({ dataDir }, environment, false)
      assert.deepEqual(found, withData)
      assert.deepEqual(places, [dataDir])
    }
  })
})

suite('a store', () => {
  async function run(dataDir: string, fence: WitnessPlace): Promise<readonly FenceEvent[]> {
    const events: FenceEvent[] = []
    const store = await openSqliteStore({
      ...storeOptions({ ...DEFAULT_CONFIG, dataDir }),
      fence,
      onFence: (event) => events.push(event),
      now: () => NOW,
    })
    await login(store, NOW)
    await store.close()
    return events
  }

  test('keeps using the witness that lies in a place that is searched, or that the database names', async () => {
    const dataDir = newDirectory()
    const state = join(newDirectory(), 'latchkey')
    assert.deepEqual(
      kindsOf(await run(dataDir, { directory: dataDir, searched: [dataDir], isWithData: true })),
      ['witness_with_data', 'stands'],
    )
    // A later version, or another user, whose default is another directory.
    assert.deepEqual(kindsOf(await run(dataDir, { directory: state, searched: [state, dataDir] })), [
      'stands',
    ])
    assert.deepEqual(kindsOf(await run(dataDir, { directory: state, searched: [state] })), ['stands'])
    mkdirSync(state, { recursive: true })
    assert.deepEqual(readdirSync(state), [])
  })

  test('reports a witness that does not exist any more with the place of the last one', async () => {
    const dataDir = newDirectory()
    const lost = { directory: newDirectory(), searched: [] }
    await run(dataDir, lost)
    const [file = ''] = readdirSync(lost.directory).filter((name) => /\d$/.test(name))
    rmSync(lost.directory, { recursive: true })
    const directory = newDirectory()
    const [event] = await run(dataDir, { directory, searched: [directory] })
    assert.ok(event?.kind === 'no_witness')
    assert.ok(event.last?.startsWith(`${join(lost.directory, file)} on `), event.last)
  })
})
