/**
 * Sources of settings, their valid values, and the messages for invalid ones. Reads nothing but files in a temporary
 * directory.
 */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { test } from 'node:test'
import { DEFAULT_CONFIG, postgresConnection } from '../../src/config/config.ts'
import { ConfigError } from '../../src/config/config-error.ts'
import { ALL_KEYS } from '../../src/config/keys.ts'
import { type LoadedConfig, loadConfig } from '../../src/config/load-config.ts'
import { printConfig } from '../../src/config/print-config.ts'
import { temporaryDirectory } from '@latchkey/testing/run-latchkey.ts'

type Given = {
  readonly flags?: Record<string, string>
  readonly environment?: Record<string, string>
  readonly yaml?: string
}

function load({ flags = {}, environment = {}, yaml }: Given): LoadedConfig {
  using directory = temporaryDirectory()
  const file = join(directory.path, 'latchkey.yaml')
  if (yaml !== undefined) writeFileSync(file, yaml)
  const all = { ...flags, ...(yaml !== undefined && { '--config': file }) }
  return loadConfig({ flags: new Map(Object.entries(all)), environment })
}

function problemsOf(given: Given): readonly string[] {
  try {
    load(given)
  } catch (error) {
    if (error instanceof ConfigError) return error.problems
    throw error
  }
  return []
}

test('without settings the configuration is the default', () => {
  assert.deepEqual(load({}).config, DEFAULT_CONFIG)
})

test('a flag overrides its variable, which overrides the file, which overrides the default', () => {
  const yaml = 'host: 127.0.0.3\nport: 3\nlog_level: error\n'
  const environment = { LATCHKEY_HOST: '127.0.0.2', LATCHKEY_PORT: '2' }
  const { config, settings } = load({ flags: { '--port': '1' }, environment, yaml })
  assert.equal(config.port, 1)
  assert.equal(config.host, '127.0.0.2')
  assert.equal(config.logLevel, 'error')
  assert.equal(config.registration, 'token')
  const sourceOf = (path: string): string | undefined => settings.find(({ key }) => key.path === path)?.source
  assert.deepEqual(['port', 'host', 'log_level', 'registration'].map(sourceOf), [
    '--port',
    'LATCHKEY_HOST',
    'latchkey.yaml:3',
    undefined,
  ])
})

test('an empty variable counts as not set', () => {
  assert.equal(load({ environment: { LATCHKEY_PORT: '', LATCHKEY_CONFIG: '' } }).config.port, 8008)
})

const WITHOUT_DEFAULT = new Map([
  ['server_name', 'example.org'],
  ['database', 'postgres://latchkey@db.example.org/latchkey'],
  ['metrics_port', '9464'],
  ['fence_dir', '/var/lib/latchkey'],
  ['access_token_lifetime', '5m'],
])

test('every key can be set by its variable and in the file, with the same result', () => {
  for (const { path, variable, kind, default: value } of ALL_KEYS) {
    const text = value === undefined ? WITHOUT_DEFAULT.get(path) : kind.format(value)
    if (text === undefined) assert.fail(`${path} has no default and no example`)
    const byVariable = load({ environment: { [variable]: text } })
    assert.deepEqual(
      byVariable.settings.find(({ key }) => key.path === path)?.source,
      variable,
      `${variable} is read`,
    )
    if (path === 'data' || path === 'fence_dir') continue // relative to the file; see the test of data directories
    const names = path.split('.')
    const yaml = names.map((name, depth) => `${'  '.repeat(depth)}${name}:`).join('\n')
    assert.deepEqual(load({ yaml: `${yaml} ${text}` }).config, byVariable.config, path)
  }
})

test('the database password is in the configuration and never printed', () => {
  for (const [database, shown] of [
    [
      'postgres://me:hunter2@db.example:5433/keys?sslmode=require',
      'postgres://me@db.example:5433/keys?sslmode=require',
    ],
    [
      'postgresql:///keys?host=/run/pg&user=me&password=hunter2',
      'postgresql:///keys?host=%2Frun%2Fpg&user=me',
    ],
  ] as const) {
    const loaded = load({ environment: { LATCHKEY_DATABASE: database } })
    assert.equal(loaded.config.database, database)
    const printed = printConfig(loaded)
    assert.ok(printed.includes(shown), printed)
    assert.ok(!printed.includes('hunter2'), printed)
  }
  for (const wrong of [
    'mysql://me:hunter2@db/keys',
    'me:hunter2@db',
    'postgres://me:hunter2@db',
    'postgres://me:hunter2@db/keys?schema=a,b',
  ]) {
    const problems = problemsOf({ environment: { LATCHKEY_DATABASE: wrong } })
    assert.deepEqual(problems, [
      'database (from LATCHKEY_DATABASE) must be a URL such as postgres://user:password@host:5432/database.',
    ])
  }
})

test('the schema of the database URL is not passed to PostgreSQL as a parameter', () => {
  const database = 'postgres://me@db/keys?sslmode=require&schema=latchkey'
  assert.deepEqual(postgresConnection({ ...DEFAULT_CONFIG, database }), {
    url: 'postgres://me@db/keys?sslmode=require',
    connections: DEFAULT_CONFIG.databaseConnections,
    schema: 'latchkey',
  })
})

test('no two keys share a path, a variable or a flag', () => {
  for (const name of ['path', 'variable'] as const)
    assert.equal(new Set(ALL_KEYS.map((key) => key[name])).size, ALL_KEYS.length)
  const flags = ALL_KEYS.flatMap(({ flag }) => (flag === undefined ? [] : [flag.name]))
  assert.equal(new Set(flags).size, flags.length)
})

test('the printed configuration is a file that produces the same configuration', () => {
  const flags = { '--port': '0', '--server-name': '[::1]:8448', '--host': '::1', '--data': '/tmp/a b: c' }
  const loaded = load({ flags, environment: { LATCHKEY_RATES_CLAIM_PER_TARGET_PER_MINUTE: '7' } })
  const yaml = printConfig(loaded)
  assert.match(yaml, /^port: 0 {2}# from --port$/m)
  assert.match(yaml, /^ {4}per_minute: 7 {2}# from LATCHKEY_RATES_CLAIM_PER_TARGET_PER_MINUTE$/m)
  assert.match(yaml, /^ {2}body_bytes: 10MiB$/m)
  assert.deepEqual(load({ yaml }).config, loaded.config)
})

test('sizes and times take units, and rates are per minute', () => {
  const { config } = load({
    yaml: 'limits:\n  body_bytes: 1 MiB\n  key_id_bytes: 100\n  sync_timeout: 90s\nrates:\n  reset_per_device:\n    per_minute: 30\n',
  })
  assert.equal(config.sizes.bodyBytes, 1_048_576)
  assert.equal(config.pools.keyIdBytes, 100)
  assert.equal(config.sizes.syncTimeoutMs, 90_000)
  assert.deepEqual(config.rates?.resetPerDevice, { burst: 10, perSecond: 0.5 })
})

test('trusted proxies are a number, or a list of addresses and networks', () => {
  const trusted = (text: string): unknown =>
    load({ environment: { LATCHKEY_TRUST_PROXY: text } }).config.trustProxy
  assert.equal(trusted('off'), 'off')
  assert.equal(trusted('false'), 'off')
  assert.equal(trusted('2'), 2)
  assert.deepEqual(trusted('127.0.0.1'), ['127.0.0.1'])
  assert.deepEqual(trusted('10.0.0.0/8, ::1,fd00::/8'), ['10.0.0.0/8', '::1', 'fd00::/8'])
  const { config } = load({ yaml: 'trust_proxy: 10.0.0.1, ::1\n' })
  assert.deepEqual(config.trustProxy, ['10.0.0.1', '::1'])
  const printed = printConfig(load({ environment: { LATCHKEY_TRUST_PROXY: '10.0.0.1,::1' } }))
  assert.deepEqual(load({ yaml: printed }).config.trustProxy, ['10.0.0.1', '::1'])
})

test('--limits off lifts every rate limit and no size limit', () => {
  const { config } = load({ flags: { '--limits': 'off' }, yaml: 'rates:\n  keys_per_device_and_day: 100\n' })
  assert.equal('rates' in config, false)
  assert.deepEqual(config.pools, {
    ...DEFAULT_CONFIG.pools,
    keysPerDeviceAndDay: 0,
    keysPerUserAndDay: 0,
    keyBytesPerUserAndDay: 0,
    healsPerDeviceAndDay: 0,
  })
  assert.deepEqual(config.sizes, DEFAULT_CONFIG.sizes)
})

test('a data directory in the file is relative to the file; one in a flag is unchanged', () => {
  using directory = temporaryDirectory()
  const file = join(directory.path, 'latchkey.yaml')
  writeFileSync(file, 'data: ./data\nfence_dir: ../witness\n')
  const flags = new Map([['--config', file]])
  assert.equal(loadConfig({ flags, environment: {} }).config.dataDir, join(directory.path, 'data'))
  assert.equal(loadConfig({ flags, environment: {} }).config.fenceDir, join(directory.path, '../witness'))
  flags.set('--data', './other')
  assert.equal(loadConfig({ flags, environment: {} }).config.dataDir, './other')
})

test('an invalid value is reported with its key, its source and the expected value', () => {
  assert.deepEqual(problemsOf({ flags: { '--port': 'eighty' } }), [
    'port (from --port) must be a whole number from 0 to 65535, not "eighty".',
  ])
  assert.deepEqual(problemsOf({ environment: { LATCHKEY_REGISTRATION: 'Open' } }), [
    'registration (from LATCHKEY_REGISTRATION) must be open, token or closed, not "Open".',
  ])
  assert.deepEqual(problemsOf({ yaml: '# mine\nlimits:\n  keys_per_request: 0\n' }), [
    'limits.keys_per_request (from latchkey.yaml:3) must be a whole number from 1 to 10000, not "0".',
  ])
})

test('values out of range or of another type are refused', () => {
  const wrong = [
    ['--port', '65536'],
    ['--port', '-1'],
    ['--port', '80.5'],
    ['--port', '0x50'],
    ['--limits', 'no'],
    ['--host', ''],
    ['--host', 'http://127.0.0.1'],
    ['--data', ''],
    ['--data', 'a\0b'],
    ['LATCHKEY_PASSWORD_MIN_LENGTH', '1'],
    ['LATCHKEY_LIMITS_BODY_BYTES', '1GiB'],
    ['LATCHKEY_LIMITS_BODY_BYTES', '5'],
    ...['true', 'on', '0', '11', '10.0.0.0/33', '::/129', 'proxy.example', '10.0.0.1,', '10.0.0.1/'].map(
      (text) => ['LATCHKEY_TRUST_PROXY', text] as const,
    ),
    ['LATCHKEY_LIMITS_SYNC_TIMEOUT', '300'],
    ['LATCHKEY_RATES_CLAIM_PER_TARGET_PER_MINUTE', '0'],
    ['LATCHKEY_RATES_CLAIM_PER_TARGET_PER_MINUTE', 'Infinity'],
  ] as const
  for (const [name, text] of wrong) {
    const flags = name.startsWith('--') ? { [name]: text } : {}
    const environment = name.startsWith('--') ? {} : { [name]: text }
    assert.equal(problemsOf({ flags, environment }).length, 1, `${name} ${JSON.stringify(text)}`)
  }
})

test('all problems are reported at once', () => {
  const problems = problemsOf({
    flags: { '--port': 'x' },
    environment: { LATCHKEY_PROT: '1' },
    yaml: 'hots: a\nhost: [1]\n',
  })
  assert.equal(problems.length, 4)
})

test('an unknown key or variable is an error that names the nearest known one', () => {
  assert.deepEqual(problemsOf({ yaml: 'registrations: open\n' }), [
    '"registrations" (from latchkey.yaml:1) is an unknown key. Did you mean registration?',
  ])
  assert.deepEqual(problemsOf({ yaml: 'limits:\n  keys_per_reqest: 5\n' }), [
    '"limits.keys_per_reqest" (from latchkey.yaml:2) is an unknown key. Did you mean limits.keys_per_request?',
  ])
  assert.deepEqual(problemsOf({ yaml: 'body_bytes: 5MiB\n' }), [
    '"body_bytes" (from latchkey.yaml:1) is an unknown key. Did you mean limits.body_bytes?',
  ])
  assert.deepEqual(problemsOf({ environment: { LATCHKEY_SERVERNAME: 'example.org' } }), [
    '"LATCHKEY_SERVERNAME" (from the environment) is an unknown variable. Did you mean LATCHKEY_SERVER_NAME?',
  ])
  assert.deepEqual(problemsOf({ yaml: '__proto__: 1\ntotally_different_thing: 2\n' }), [
    '"__proto__" (from latchkey.yaml:1) is an unknown key.',
    '"totally_different_thing" (from latchkey.yaml:2) is an unknown key.',
  ])
})

test('the variables that Kubernetes sets for a Service named latchkey are ignored, and no others', () => {
  const injected = {
    LATCHKEY_SERVICE_HOST: '10.0.0.1',
    LATCHKEY_SERVICE_PORT: '8008',
    LATCHKEY_SERVICE_PORT_HTTP: '8008',
    LATCHKEY_PORT: 'tcp://10.0.0.1:8008',
    LATCHKEY_PORT_8008_TCP: 'tcp://10.0.0.1:8008',
    LATCHKEY_PORT_8008_TCP_PROTO: 'tcp',
    LATCHKEY_PORT_8008_TCP_PORT: '8008',
    LATCHKEY_PORT_8008_TCP_ADDR: '10.0.0.1',
    LATCHKEY_DB_SERVICE_HOST: '10.0.0.2',
    LATCHKEY_DB_PORT: 'tcp://[fd00::2]:5432',
  }
  assert.deepEqual(load({ environment: injected }).config, DEFAULT_CONFIG)
  assert.equal(load({ environment: { ...injected, LATCHKEY_PORT: '8123' } }).config.port, 8123)
  for (const [name, value] of [
    ['LATCHKEY_PORT', 'http://10.0.0.1:8008'],
    ['LATCHKEY_PORT', 'tcp://10.0.0.1'],
    ['LATCHKEY_DB_PORT', '5432'],
    ['LATCHKEY_SERVICE', 'x'],
    ['LATCHKEY_PORT_8008', 'tcp://10.0.0.1:8008'],
  ] as const) {
    assert.equal(problemsOf({ environment: { [name]: value } }).length, 1, `${name}=${value}`)
  }
})

test('a file that is missing, not YAML, or not a mapping is reported as such', () => {
  assert.match(
    problemsOf({ flags: { '--config': '/nowhere/latchkey.yaml' } })[0] ?? '',
    /^--config .*does not exist/,
  )
  assert.match(problemsOf({ yaml: 'port: 1\nport: 2\n' })[0] ?? '', /^latchkey\.yaml:2 .*unique/)
  assert.match(problemsOf({ yaml: 'a: {\n' })[0] ?? '', /^latchkey\.yaml:\d+ is not valid YAML/)
  assert.match(problemsOf({ yaml: '- port\n' })[0] ?? '', /must contain keys and values/)
  assert.match(problemsOf({ yaml: 'limits: off\n' })[0] ?? '', /^limits .*must contain keys and values/)
  assert.match(problemsOf({ yaml: 'port:\n' })[0] ?? '', /^port .*must have one value/)
  assert.match(problemsOf({ yaml: 'port: *unknown\n' })[0] ?? '', /latchkey\.yaml:1/)
  assert.deepEqual(load({ yaml: '# only a comment\n' }).config, DEFAULT_CONFIG)
})

test('values in the file keep their text: a server name may look like a number', () => {
  assert.equal(load({ yaml: 'server_name: 1.10\n' }).config.serverName, '1.10')
})

test('server names follow the grammar of the specification', () => {
  const accepts = (name: string): boolean => problemsOf({ flags: { '--server-name': name } }).length === 0
  const good = ['localhost', 'example.org', 'example.org:8448', '10.0.0.1', '[::1]', '[2001:db8::1]:8448']
  for (const name of good) assert.ok(accepts(name), name)
  const bad = [
    '',
    'exa mple.org',
    'example.org:',
    'example.org:99999',
    '::1',
    '[1.2.3.4]',
    '[::1',
    'a_b.org',
    'http://a',
    'ä.org',
    'a'.repeat(231),
  ]
  for (const name of bad) assert.ok(!accepts(name), name)
})

test('open registration on an address that is not loopback needs an explicit second setting', () => {
  const open = { '--registration': 'open' }
  for (const host of ['127.0.0.1', '127.9.9.9', '::1', 'localhost'])
    assert.deepEqual(problemsOf({ flags: { ...open, '--host': host } }), [])
  for (const host of ['0.0.0.0', '::', '192.168.1.2', 'example.org']) {
    const flags = { ...open, '--host': host }
    const [problem = ''] = problemsOf({ flags })
    assert.match(problem, /^registration \(from --registration\) is open/)
    assert.match(problem, /--allow-open-registration \(allow_open_registration: on\)/)
    assert.deepEqual(problemsOf({ flags, yaml: 'allow_open_registration: true\n' }), [])
    assert.deepEqual(problemsOf({ flags: { ...flags, '--allow-open-registration': 'on' } }), [])
  }
})
