/**
 * A guarded matrix-js-sdk in real Chromium: two tabs on one account, a reload in the middle of an upload, a profile
 * restored from an old copy. The app itself handles none of these. Cases that need a heal also run unguarded, to show
 * the failure.
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
      ? 'two tabs on one account: the remaining tab has every key on the server, and no upload was refused'
      : 'unguarded, two tabs on one account: every upload of the second is refused, and it has no key on the server'
    test(behaviour, async () => {
      const alice = await signIn(`tabs-${guarded}`)
      const crowd = await signIn(`tabs-crowd-${guarded}`)
      const first = await openApp(chromium.context, alice, guarded)
      await until(first, 'uploads', 1)
      const second = await openApp(chromium.context, alice, guarded)
      await until(second, 'syncs', 2)
      // Keys are claimed. The second tab learns it late; by then the first has used the next key IDs for its own keys.
      await second.evaluate(() => sdkPage.holdSyncsWithClaims())
      await crowd.claimMany(alice.userId, alice.deviceId, 30)
      await until(second, 'held', 1)
      await until(first, 'uploads', 2)
      await first.evaluate(() => sdkPage.holdSyncsWithClaims())
      // All keys that the tabs had in common.
      await crowd.claimMany(alice.userId, alice.deviceId, 20)
      await crowd.claimMany(alice.userId, alice.deviceId, 10)
      await second.evaluate(() => sdkPage.release())
      await until(second, 'uploads', 1)
      await first.close()
      await mark(alice, second, 'alone')
      if (!guarded) await until(second, 'uploads', 2)
      const { uploads, events } = await notesOf(second)
      const { left, read } = await drainPool(second, alice, crowd)
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

  test('a reload in the middle of an upload needs no heal, and every message is decrypted', async () => {
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
    await expectAllDecrypted(page, alice, 'reloaded')
  })

  for (const guarded of [true, false]) {
    const behaviour = guarded
      ? 'a profile restored from an old copy is healed by its next sync'
      : 'unguarded, a profile restored from an old copy cannot decrypt messages'
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
          // Twenty of the keys were in the copy; all others are newer.
          await crowd.claimMany(alice.userId, alice.deviceId, 20)
          if (guarded) await expectAllDecrypted(page, alice, 'restored')
          else assert.deepEqual(await decryptedTexts(page, alice, 'unguarded'), [])
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

  /** Runs `work` in a browser on a profile, then kills the browser. */
  async function inProfile(profile: string, work: (page: Page) => Promise<void>): Promise<void> {
    await using running = await startChromium(profile)
    const page = await running.context.newPage()
    await page.goto(site.url)
    await work(page)
  }

  /** Three new senders write; the page must decrypt all messages. */
  async function expectAllDecrypted(page: Page, account: MatrixSession, about: string): Promise<void> {
    const texts = await decryptedTexts(page, account, about)
    assert.deepEqual(texts, ['one', 'two', 'three'])
  }

  /** Sends a message on each one-time key that the server has; returns how many the page decrypted. */
  async function drainPool(
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

  /** Three new senders write, each on a new key. Returns the decrypted texts. */
  async function decryptedTexts(page: Page, account: MatrixSession, about: string): Promise<string[]> {
    for (const text of ['one', 'two', 'three']) {
      using sender = await OlmDevice.ready(server.url, { user: `${about}-${text}`, deviceId: 'PHONE' })
      const claimed = await sender.write(account, text)
      assert.equal(claimed?.isFallback, false)
    }
    await mark(account, page, 'written')
    return (await notesOf(page)).received
  }
})

/** Waits until a page has handled everything sent to it so far. */
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
