/**
 * A guarded matrix-js-sdk in real Chromium, where apps live: two tabs on one account, a reload in the middle of an
 * upload, a profile restored from an old copy. The app does nothing about any of it. What needs a heal runs unguarded as
 * well, to show that it does.
 */
import assert from 'node:assert/strict'
import { rmSync } from 'node:fs'
import { after, before, suite, test } from 'node:test'
import type { BrowserContext, Page } from 'playwright-core'
import { startTestServer, type TestServer } from '@latchkey/testing/test-server.ts'
import { MatrixSession } from '@latchkey/testing/matrix-session.ts'
import { OlmDevice } from '@latchkey/testing/olm-device.ts'
import { within } from '@latchkey/testing/within.ts'
import { drain } from '../../lab/client/drain.ts'
import { loadOlm } from '../../lab/client/load-olm.ts'
import {
  copyProfile,
  newProfile,
  type RunningChromium,
  skipWithoutChromium,
  startChromium,
} from './support/chromium.ts'
import { type Site, serveSite } from './support/site.ts'

const MARK = 'dev.latchkey.test.mark'

suite('a guarded SDK in Chromium', { skip: skipWithoutChromium() }, () => {
  let site: Site
  let server: TestServer
  let chromium: RunningChromium

  before(async () => {
    server = await startTestServer()
    site = await serveSite('sdk')
    chromium = await startChromium()
  })
  after(async () => {
    await chromium?.[Symbol.asyncDispose]()
    await site?.[Symbol.asyncDispose]()
    await server?.[Symbol.asyncDispose]()
  })

  for (const guarded of [true, false]) {
    const behaviour = guarded
      ? 'of two tabs on one account, the one that stays is refused nothing, and has every key that is left on the server'
      : 'unguarded, the second of two tabs on one account is refused again and again, and has no key that is left'
    test(behaviour, async () => {
      const alice = await signIn(`tabs-${guarded}`)
      const crowd = await signIn(`tabs-crowd-${guarded}`)
      const first = await openApp(chromium.context, alice, guarded)
      await until(first, 'uploads', 1)
      const second = await openApp(chromium.context, alice, guarded)
      await until(second, 'syncs', 2)
      // Keys are claimed. The second tab hears of it late; by then the first has taken the next IDs for keys of its own.
      await second.evaluate(() => sdkPage.holdNewsOfClaims())
      await crowd.claimMany(alice.userId, alice.deviceId, 30)
      await until(second, 'held', 1)
      await until(first, 'uploads', 2)
      await first.evaluate(() => sdkPage.holdNewsOfClaims())
      // All that the tabs had in common.
      await crowd.claimMany(alice.userId, alice.deviceId, 20)
      await crowd.claimMany(alice.userId, alice.deviceId, 10)
      await second.evaluate(() => sdkPage.release())
      await until(second, 'uploads', 1)
      await first.close()
      await mark(alice, second, 'alone')
      if (!guarded) await until(second, 'uploads', 2)
      const { uploads, events } = await notesOf(second)
      const { left, read } = await drained(second, alice, crowd)
      if (!guarded) {
        assert.deepEqual([...new Set(uploads)], [400])
        assert.ok(left > 0)
        assert.equal(read, 0)
        return
      }
      assert.deepEqual([...new Set(uploads)], [200])
      assert.ok(events.some(({ type }) => type === 'healed'))
      assert.ok(left > 0)
      assert.equal(read, left)
    })
  }

  test('a reload in the middle of an upload needs no heal, and everything is read', async () => {
    const alice = await signIn('reload')
    const crowd = await signIn('reload-crowd')
    const page = await openApp(chromium.context, alice, true)
    await until(page, 'uploads', 1)
    await page.evaluate(() => sdkPage.loseUploadAnswers())
    await crowd.claimMany(alice.userId, alice.deviceId, 30)
    await until(page, 'uploadsOnWire', 2)
    await page.reload()
    await startApp(page, alice, true)
    await until(page, 'uploads', 1)
    const { uploads, events } = await notesOf(page)
    assert.deepEqual([...new Set(uploads)], [200])
    assert.deepEqual(
      events.filter(({ severity }) => severity !== 'info'),
      [],
    )
    await crowd.claimMany(alice.userId, alice.deviceId, 20)
    await readsAll(page, alice, 'reloaded')
  })

  for (const guarded of [true, false]) {
    const behaviour = guarded
      ? 'a profile that was restored from an old copy is healed by its next sync'
      : 'unguarded, after a profile was restored from an old copy messages cannot be read'
    test(behaviour, async () => {
      const alice = await signIn(`restore-${guarded}`)
      const crowd = await signIn(`restore-crowd-${guarded}`)
      const [profile, copy] = [newProfile(), newProfile()]
      try {
        await inProfile(profile, async (page) => {
          await startApp(page, alice, guarded)
          await until(page, 'uploads', 1)
          await mark(alice, page, 'published')
        })
        copyProfile(profile, copy)
        await inProfile(profile, async (page) => {
          await startApp(page, alice, guarded)
          await mark(alice, page, 'again')
          await crowd.claimMany(alice.userId, alice.deviceId, 30)
          await until(page, 'uploads', 1)
        })
        await inProfile(copy, async (page) => {
          await startApp(page, alice, guarded)
          await mark(alice, page, 'restored')
          if (guarded) {
            await until(page, 'uploads', 1)
            const { events } = await notesOf(page)
            assert.ok(events.some((event) => event.type === 'healed' && event.cause === 'unknown_keys'))
          }
          // Twenty of the keys are as old as the copy; whatever follows them is from after it.
          await crowd.claimMany(alice.userId, alice.deviceId, 20)
          if (guarded) await readsAll(page, alice, 'restored')
          else assert.deepEqual(await readOf(page, alice, 'unguarded'), [])
        })
      } finally {
        for (const directory of [profile, copy])
          rmSync(directory, { recursive: true, force: true, maxRetries: 5 })
      }
    })
  }

  function signIn(user: string): Promise<MatrixSession> {
    return MatrixSession.signIn(server.url, user, 'BROWSER')
  }

  async function openApp(context: BrowserContext, account: MatrixSession, guarded: boolean): Promise<Page> {
    const page = await context.newPage()
    await page.goto(site.url)
    await startApp(page, account, guarded)
    return page
  }

  async function startApp(page: Page, account: MatrixSession, guarded: boolean): Promise<void> {
    await page.waitForFunction(() => 'sdkPage' in globalThis)
    const { baseUrl, userId, deviceId, token } = account
    const started = page.evaluate(([session, withGuard]) => sdkPage.start(session, { guarded: withGuard }), [
      { baseUrl, userId, deviceId, token },
      guarded,
    ] as const)
    await within('the client to start', started)
  }

  /** A browser on a profile, from its start to a sudden end. */
  async function inProfile(profile: string, work: (page: Page) => Promise<void>): Promise<void> {
    await using running = await startChromium(profile)
    const page = await running.context.newPage()
    await page.goto(site.url)
    await work(page)
  }

  /** Three new senders write; all of it must be read. */
  async function readsAll(page: Page, account: MatrixSession, about: string): Promise<void> {
    const texts = await readOf(page, account, about)
    assert.deepEqual(texts, ['one', 'two', 'three'])
  }

  /** A message on each one-time key that the server has, and how many of them are read. */
  async function drained(
    page: Page,
    account: MatrixSession,
    sender: MatrixSession,
  ): Promise<{ left: number; read: number }> {
    const pool = await account.ok('GET', '/unstable/dev.latchkey/keys/pool')
    const left: number = pool.algorithms.signed_curve25519.available.length
    const messages = await drain(await loadOlm(), sender, account, left)
    assert.ok(messages.every(({ key }) => !key.isFallback))
    await mark(account, page, 'drained')
    const { received } = await notesOf(page)
    return { left, read: messages.filter(({ text }) => received.includes(text)).length }
  }

  /** What is read of what three new senders write, each on a key of its own. */
  async function readOf(page: Page, account: MatrixSession, about: string): Promise<string[]> {
    for (const text of ['one', 'two', 'three']) {
      using sender = await OlmDevice.ready(server.url, { user: `${about}-${text}`, deviceId: 'PHONE' })
      const claimed = await sender.write(account, text)
      assert.equal(claimed?.isFallback, false)
    }
    await mark(account, page, 'written')
    return (await notesOf(page)).received
  }
})

/** Waits until a page has dealt with everything that was sent to it so far. */
async function mark(account: MatrixSession, page: Page, text: string): Promise<void> {
  const path = `/v3/sendToDevice/${MARK}/${crypto.randomUUID()}`
  await account.ok('PUT', path, { messages: { [account.userId]: { [account.deviceId]: { text } } } })
  await until(page, 'marks', text)
}

function until(
  page: Page,
  list: 'uploads' | 'uploadsOnWire' | 'marks' | 'held' | 'syncs',
  wanted: number | string,
): Promise<void> {
  return within(
    `${list}: ${wanted}`,
    page.evaluate(([name, value]) => sdkPage.until(name, value), [list, wanted] as const),
  )
}

function notesOf(page: Page): Promise<typeof sdkPage.notes> {
  return page.evaluate(() => sdkPage.notes)
}
