/**
 * Value kinds of configuration keys. Flags, variables and files all provide text, so each kind is parsed in one place;
 * `parse` accepts the output of `format`.
 */
import { isIP } from 'node:net'
import type { TrustedProxies } from './config.ts'

export interface Kind<T> {
  /** Completes "must be ..." in errors, and describes the kind in the reference table. */
  readonly expects: string
  /** The value, or undefined if the text is invalid. */
  parse(text: string): T | undefined
  /** Omits secrets. */
  format(value: T): string
  /** The text may contain a secret, so errors must not repeat it. */
  readonly secret?: true
}

const KIB = 1024
const MIB = 1024 * KIB

export function plainText(expects: string, accepts: (text: string) => boolean): Kind<string> {
  return { expects, parse: (text) => (accepts(text) ? text : undefined), format: (value) => value }
}

/** A URL of a PostgreSQL database. Its password is a secret. */
export function postgresUrl(): Kind<string> {
  return {
    expects: 'a URL such as postgres://user:password@host:5432/database',
    secret: true,
    parse: (text) => (isPostgresUrl(text) ? text : undefined),
    format: withoutSecrets,
  }
}

function isPostgresUrl(text: string): boolean {
  const url = URL.parse(text)
  if (url === null || !/^postgres(ql)?:$/.test(url.protocol) || url.pathname.length < 2) return false
  return /^[a-z_][a-z0-9_]{0,62}$/.test(url.searchParams.get('schema') ?? 'public')
}

/** Removes the password from the authority and from the parameters. */
function withoutSecrets(text: string): string {
  const url = new URL(text)
  url.password = ''
  url.searchParams.delete('password')
  return url.href
}

export function choice<const T extends string>(options: readonly T[]): Kind<T> {
  return {
    expects: alternatives(options),
    parse: (text) => options.find((option) => option === text),
    format: (value) => value,
  }
}

function alternatives(options: readonly string[]): string {
  return `${options.slice(0, -1).join(', ')} or ${options.at(-1)}`
}

/** `on` and `off`, and YAML's `true` and `false`. */
export function onOff(): Kind<boolean> {
  const values = new Map([
    ['on', true],
    ['true', true],
    ['off', false],
    ['false', false],
  ])
  return {
    expects: 'on or off',
    parse: (text) => values.get(text.toLowerCase()),
    format: (value) => (value ? 'on' : 'off'),
  }
}

const MAX_PROXIES = 10
const MAX_PREFIX_LENGTHS: Readonly<Record<number, number>> = { 4: 32, 6: 128 }

/** Number of proxies in front of the server, or a comma-separated list of their addresses and networks. */
export function proxies(): Kind<TrustedProxies> {
  return {
    expects: `off, a number of proxies from 1 to ${MAX_PROXIES}, or their addresses or networks with commas between`,
    parse(text) {
      if (text === 'off' || text === 'false') return 'off'
      if (/^\d{1,2}$/.test(text)) return within(Number(text), 1, MAX_PROXIES)
      const networks = text.split(',').map((network) => network.trim())
      return networks.every(isNetwork) ? networks : undefined
    },
    format: String,
  }
}

/** `10.0.0.1`, `10.0.0.0/8`, `::1`, `fd00::/8`. */
function isNetwork(text: string): boolean {
  const [, address = '', prefix = '0'] = /^([0-9A-Fa-f:.]+)(?:\/(\d{1,3}))?$/.exec(text) ?? []
  return Number(prefix) <= (MAX_PREFIX_LENGTHS[isIP(address)] ?? -1)
}

export function whole(min: number, max: number, note = ''): Kind<number> {
  return {
    expects: `a whole number from ${min} to ${max}${note}`,
    parse: (text) => (/^\d{1,15}$/.test(text) ? within(Number(text), min, max) : undefined),
    format: String,
  }
}

/** A rate per minute in the configuration, per second in Config. */
export function perMinute(min: number, max: number): Kind<number> {
  return {
    expects: `a number from ${min} to ${max}`,
    parse(text) {
      const number = /^\d{1,9}(\.\d{1,9})?$/.test(text) ? within(Number(text), min, max) : undefined
      return number === undefined ? undefined : number / 60
    },
    format: (perSecond) => String(Number((perSecond * 60).toPrecision(12))),
  }
}

/** A size in bytes, optionally with the unit `KiB` or `MiB`. */
export function bytes(min: number, max: number): Kind<number> {
  const units = new Map([
    ['', 1],
    ['KiB', KIB],
    ['MiB', MIB],
  ])
  return {
    expects: `a size from ${formatBytes(min)} to ${formatBytes(max)} (bytes, KiB or MiB)`,
    parse(text) {
      const [, number, unit = ''] = /^(\d{1,12}) ?(KiB|MiB)?$/.exec(text) ?? []
      return number === undefined ? undefined : within(Number(number) * (units.get(unit) ?? 1), min, max)
    },
    format: formatBytes,
  }
}

function formatBytes(value: number): string {
  if (value >= MIB && value % MIB === 0) return `${value / MIB}MiB`
  return value >= KIB && value % KIB === 0 ? `${value / KIB}KiB` : String(value)
}

/** Longest first, so that times are formatted in the largest unit that divides them. */
const TIME_UNITS = [
  ['d', 86_400_000],
  ['h', 3_600_000],
  ['m', 60_000],
  ['s', 1000],
  ['ms', 1],
] as const

/** A duration with a unit, stored in milliseconds: `30s`, `5m`, `12h`, `7d`. */
export function duration(minMs: number, maxMs: number): Kind<number> {
  return {
    expects: `a time from ${formatDuration(minMs)} to ${formatDuration(maxMs)} (ms, s, m, h or d)`,
    parse(text) {
      const [, number, suffix] = /^(\d{1,12}) ?([a-z]{1,2})$/.exec(text) ?? []
      const unit = TIME_UNITS.find(([name]) => name === suffix)
      return unit === undefined ? undefined : within(Number(number) * unit[1], minMs, maxMs)
    },
    format: formatDuration,
  }
}

function formatDuration(valueMs: number): string {
  const unit = TIME_UNITS.find(([, ms]) => valueMs >= ms && valueMs % ms === 0)
  return unit === undefined ? `${valueMs}ms` : `${valueMs / unit[1]}${unit[0]}`
}

function within(value: number, min: number, max: number): number | undefined {
  return value >= min && value <= max ? value : undefined
}
