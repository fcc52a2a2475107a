/** docs/reference/client-api.md is the API of the built package, and every public declaration has TSDoc. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { before, test } from 'node:test'
import { API_PAGE, type Api, apiPage, type Declaration, readApi } from '../../../../scripts/client-api.ts'

let api: Api
before(async () => {
  api = await readApi()
})

function exported(): Declaration[] {
  return api.entryPoints.flatMap((entryPoint) => entryPoint.exported)
}

test('the API page is up to date; `npm run api:update` writes it', () => {
  assert.equal(readFileSync(API_PAGE, 'utf8'), apiPage(api))
})

test('every public declaration has TSDoc', () => {
  const undocumented = exported().filter(({ comment }) => comment === '')
  assert.deepEqual(
    undocumented.map(({ name }) => name),
    [],
  )
})

test('every entry into the library has an example', () => {
  for (const name of ['guardFetch', 'KeyManager', 'indexedDbStore', 'libolmAccounts', 'fileStore']) {
    const comment = exported().find((declaration) => declaration.name === name)?.comment ?? ''
    assert.match(comment, /@example/, name)
  }
})
