/** `indexedDbStore` in real Chromium: the store contract, tabs that share a store, reloads, kill -9 of the browser. */
import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import { after, before, suite, test } from 'node:test'
import type { BrowserContext, Page } from 'playwright-core'
import { STORE_CASES } from '../../packages/client/test/store-contract/cases.ts'
import { within } from '@latchkey/testing/within.ts'
import { newProfile, type RunningChromium, skipWithoutChromium, startChromium } from './support/chromium.ts'
import { type Site, serveSite } from './support/site.ts'

suite('a store in Chromium', { skip: skipWithoutChromium() }, () => {
  let site: Site
  let chromium: RunningChromium

  before(async () => {
    site = await serveSite('store')
    chromium = await startChromium()
  })
  after(async () => {
    await chromium?.[Symbol.asyncDispose]()
    await site?.[Symbol.asyncDispose]()
  })

  test('fulfils the store contract', async (t) => {
    const page = await openPage(chromium.context, site)
    assert.deepEqual(
      await page.evaluate(() => storePage.caseNames),
      STORE_CASES.map(({ name }) => name),
    )
    for (const { name } of STORE_CASES) {
      await t.test(name, () =>
        within(
          name,
          page.evaluate((caseName) => storePage.runCase(caseName), name),
        ),
      )
    }
  })

  test('asks for strict durability at every write', async () => {
    const page = await openPage(chromium.context, site)
    const durabilities = await page.evaluate(() => storePage.durabilities('durability'))
    assert.deepEqual(durabilities, ['strict', 'strict'])
  })

  test('two tabs that write by compare-and-swap lose no step', async () => {
    const [one, other] = await twoTabs()
    const count = (page: Page) => page.evaluate(() => storePage.countBySwap('swap', 40))
    const stale = await within('both tabs to have counted', Promise.all([count(one), count(other)]))
    const { generation, records } = await one.evaluate(() => storePage.read('swap'))
    assert.equal(records['count'], '80')
    assert.equal(generation, 80)
    assert.ok(Math.max(...stale) > 0, 'the tabs never wrote concurrently')
  })

  test('two tabs that write under the lock are never stale', async () => {
    const [one, other] = await twoTabs()
    const count = (page: Page) => page.evaluate(() => storePage.countUnderLock('lock', 40))
    await within('both tabs to have counted', Promise.all([count(one), count(other)]))
    const { generation, records } = await one.evaluate(() => storePage.read('lock'))
    assert.equal(records['count'], '80')
    assert.equal(generation, 80)
  })

  test('a closed tab releases the lock, and a tab that waits for it too long gets an error', async () => {
    const [one, other] = await twoTabs()
    await one.evaluate(() => storePage.holdLock('held'))
    await assert.rejects(
      other.evaluate(() => storePage.useLock('held', 20)),
      /StoreError: .* another tab has held its lock for 20 ms/,
    )
    const waiting = other.evaluate(() => storePage.useLock('held'))
    await one.close()
    assert.equal(await within('the lock to be free', waiting), 'mine')
  })

  test('a reload in the middle of writes loses no acknowledged write', async () => {
    const page = await openPage(chromium.context, site)
    const acknowledged = await lastReportedStep(page, 'reload', async () => {
      await page.reload()
      await page.waitForFunction(() => 'storePage' in globalThis)
    })
    const { generation, records } = await page.evaluate(() => storePage.read('reload'))
    assert.equal(Number(records['count']), generation)
    assert.ok(generation >= acknowledged, `${acknowledged} acknowledged, ${generation} stored`)
  })

  test('a browser killed in the middle of writes loses no acknowledged write', async () => {
    const profile = newProfile()
    try {
      const first = await startChromium(profile)
      const page = await openPage(first.context, site)
      const acknowledged = await lastReportedStep(page, 'kill', () => first.kill())
      await using second = await startChromium(profile)
      const again = await openPage(second.context, site)
      const { generation, records } = await again.evaluate(() => storePage.read('kill'))
      assert.equal(Number(records['count']), generation)
      assert.ok(generation >= acknowledged, `${acknowledged} acknowledged, ${generation} stored`)
    } finally {
      rmSync(profile, { recursive: true, force: true, maxRetries: 5 })
    }
  })

  async function twoTabs(): Promise<[Page, Page]> {
    return [await openPage(chromium.context, site), await openPage(chromium.context, site)]
  }
})

/** Lets a page count endlessly and interrupts it after 30 steps. Returns the last step it reported. */
async function lastReportedStep(
  page: Page,
  database: string,
  interrupt: () => Promise<void>,
): Promise<number> {
  let acknowledged = 0
  const { promise: enough, resolve } = Promise.withResolvers<void>()
  await page.exposeFunction('reportStep', (step: number) => {
    acknowledged = Math.max(acknowledged, step)
    if (acknowledged >= 30) resolve()
  })
  page.evaluate((name) => storePage.countEndlessly(name), database).catch(() => undefined)
  await within('the page to write', enough)
  await interrupt()
  return acknowledged
}

async function openPage(context: BrowserContext, site: Site): Promise<Page> {
  const page = await context.newPage()
  await page.goto(site.url)
  await page.waitForFunction(() => 'storePage' in globalThis)
  return page
}
