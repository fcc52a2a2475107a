/**
 * The security log: one JSON line per event of security-events.ts, independent of the log level (issue 11, D). Strings
 * and lists are cut, and each user or network has a rate per event, so that no one can fill the disk or hide others'
 * events; what is not written is counted, and the count is written every minute.
 */
import { closeSync, openSync, writeSync } from 'node:fs'
import { ConfigError } from '../config/config-error.ts'
import { networkOf } from '../lib/client-network.ts'
import { TokenBuckets } from '../lib/token-bucket.ts'
import type { SecurityDetails, SecurityEvent, SecurityValue } from './security-events.ts'

/** Where an event comes from: a request, and the user and device that it was authenticated as. */
export type Origin = {
  readonly address?: string
  readonly requestId?: string
  readonly userId?: string
  readonly deviceId?: string
}

export type SecurityLogOptions = {
  /** Takes one line, with its newline. Undefined: nothing is written. */
  readonly write?: (line: string) => void
  readonly now: () => number
  /** Counts every event, also those that are not written. */
  readonly count?: (event: SecurityEvent) => void
}

const MAX_TEXT_LENGTH = 255
const MAX_LISTED = 10
/** The level `info` of the operator's log, whose viewers can show these lines too. */
const LEVEL = 30
const PER_SUBJECT = { burst: 20, perSecond: 0.1 }
/** Bounds one kind of event to about 90 MB a day, however many networks take part. */
const PER_EVENT = { burst: 500, perSecond: 2 }
/** Only the operator causes them, and each is a change that someone may look for later. */
const UNLIMITED: ReadonlySet<SecurityEvent> = new Set(['admin_command'])
/** Subjects with a count of their own until the next summary; events of further ones are counted together. */
const MAX_SUPPRESSED = 100
const OTHERS = '*'
const SUMMARY_EVERY_MS = 60_000

export class SecurityLog {
  readonly #options: SecurityLogOptions
  readonly #perSubject = new TokenBuckets(PER_SUBJECT)
  readonly #perEvent = new TokenBuckets(PER_EVENT)
  readonly #suppressed = new Map<
    string,
    { readonly of: SecurityEvent; readonly subject: string; count: number }
  >()

  constructor(options: SecurityLogOptions) {
    this.#options = options
  }

  /** Writes an event, or counts it if its user or network has too many. */
  note<Event extends SecurityEvent>(event: Event, origin: Origin, details: SecurityDetails<Event>): void {
    const { write, now, count } = this.#options
    count?.(event)
    if (write === undefined) return
    const nowMs = now()
    if (UNLIMITED.has(event)) return write(lineOf(nowMs, event, origin, details))
    const subject = origin.userId ?? networkOf(origin.address ?? '')
    const isOver =
      this.#perSubject.take(`${event} ${subject}`, nowMs) > 0 || this.#perEvent.take(event, nowMs) > 0
    if (isOver) this.#suppress(event, subject)
    else write(lineOf(nowMs, event, origin, details))
  }

  /** Writes the counts of the events that were not written. */
  summarise(): void {
    const { write, now } = this.#options
    for (const { of, subject, count } of this.#suppressed.values())
      write?.(lineOf(now(), 'events_suppressed', {}, { of, subject, count }))
    this.#suppressed.clear()
  }

  #suppress(of: SecurityEvent, subject: string): void {
    const known = this.#suppressed.get(`${of} ${subject}`)
    if (known !== undefined) known.count++
    else if (this.#suppressed.size < MAX_SUPPRESSED || subject === OTHERS)
      this.#suppressed.set(`${of} ${subject}`, { of, subject, count: 1 })
    else this.#suppress(of, OTHERS)
  }
}

/** The event and the address come first, at a fixed place for programs that search text. */
function lineOf(nowMs: number, event: SecurityEvent, origin: Origin, details: object): string {
  const { address, requestId, userId, deviceId } = origin
  const members = { address, requestId, userId, deviceId, ...details }
  const bounded = Object.entries(members).map(([name, value]) => [name, bound(value)])
  const time = new Date(nowMs).toISOString()
  return `${JSON.stringify({ level: LEVEL, time, pid: process.pid, event, ...Object.fromEntries(bounded) })}\n`
}

function bound(value: SecurityValue | undefined): SecurityValue | undefined {
  if (typeof value === 'object') return value.slice(0, MAX_LISTED).map(cut)
  return typeof value === 'string' ? cut(value) : value
}

function cut(text: string): string {
  return text.length > MAX_TEXT_LENGTH ? `${text.slice(0, MAX_TEXT_LENGTH)}...` : text
}

export type OpenSecurityLog = { readonly log: SecurityLog; readonly close: () => void }

/**
 * Opens the log at its configured place: `on` is stderr, as for the operator's log; else a file, which is appended to.
 *
 * @param onFailure called once when the file cannot be written, for example on a full disk, until it can again
 * @throws {ConfigError} if the file cannot be opened
 */
export function openSecurityLog(
  place: string,
  options: Omit<SecurityLogOptions, 'write'> & { readonly onFailure: (error: unknown) => void },
): OpenSecurityLog {
  if (place === 'off') return { log: new SecurityLog(options), close: () => {} }
  const file = place === 'on' ? undefined : openFile(place, options.onFailure)
  const write = file === undefined ? writeToStderr : file.write
  const log = new SecurityLog({ ...options, write })
  const timer = setInterval(() => log.summarise(), SUMMARY_EVERY_MS).unref()
  return {
    log,
    close() {
      clearInterval(timer)
      log.summarise()
      file?.close()
    },
  }
}

function writeToStderr(line: string): void {
  process.stderr.write(line)
}

function openFile(
  path: string,
  onFailure: (error: unknown) => void,
): { readonly write: (line: string) => void; readonly close: () => void } {
  let descriptor: number | undefined
  try {
    descriptor = openSync(path, 'a', 0o600)
  } catch (error) {
    throw new ConfigError([
      `security_log ${path} cannot be opened: ${error instanceof Error ? error.message : String(error)}. ` +
        'Name a file in a directory that this user may write to, or use "on" or "off".',
    ])
  }
  let failing = false
  return {
    write(line) {
      if (descriptor === undefined) return
      try {
        writeSync(descriptor, line)
        failing = false
      } catch (error) {
        if (!failing) onFailure(error)
        failing = true
      }
    },
    close() {
      if (descriptor !== undefined) closeSync(descriptor)
      descriptor = undefined
    },
  }
}
