/** The steps of a history, and generators of random histories. */
import fc from 'fast-check'

export const USERS = 3
export const DEVICE_IDS = ['A', 'B', 'C'] as const
/** More than `algorithmsPerDevice` of the test's configurations. */
export const ALGORITHMS = ['signed_curve25519', 'curve25519', 'plain', 'extra', 'more'] as const
/** Base64 order, code-point order and creation order all differ among these. */
const KEY_IDS = ['AAAAHg', 'AAAAAQ', 'AAAAAA', '0', 'a', 'Z', '\u{1F511}', '\uFFFD'] as const
const MATERIALS = 14
const IDENTITIES = 3

/** A device of a history, by the number of its user and its ID. */
export type Actor = { readonly user: number; readonly device: string }

export type KeyPick = {
  readonly algorithm: string
  readonly id: string
  readonly material: number
  /** The device's current identity, none, or the identity of this number. */
  readonly signer: 'current' | 'none' | number
}

type Keys = { readonly keys: readonly KeyPick[]; readonly fallbacks: readonly KeyPick[] }

/** A precondition or a password: the one that the server has, or another. */
type Given = 'right' | 'wrong'

export type Step =
  | { readonly do: 'wait'; readonly ms: number }
  | { readonly do: 'restart' }
  /** `keepsToken`: the device continues with the token of its previous login. */
  | { readonly do: 'login'; readonly by: Actor; readonly keepsToken?: boolean }
  | ({ readonly do: 'upload'; readonly by: Actor; readonly identity?: number } & Keys)
  /** Repeats the last upload of the history. */
  | { readonly do: 'upload again' }
  | {
      readonly do: 'claim'
      readonly by: Actor
      readonly targets: readonly (Actor & { readonly algorithm: string })[]
    }
  | ({
      readonly do: 'reset'
      readonly by: Actor
      readonly all: boolean
      readonly names: readonly string[]
      readonly requestId?: number
      readonly ifVersion?: Given
      readonly ifGeneration?: Given
      readonly ifEpoch?: Given
    } & Keys)
  | { readonly do: 'pool'; readonly by: Actor; readonly limit: number }
  | { readonly do: 'logout'; readonly by: Actor; readonly all?: boolean }
  | {
      readonly do: 'delete devices'
      readonly by: Actor
      readonly devices: readonly string[]
      readonly password?: Given
    }
  /** Sets the same password again. `logsOut`: removes the user's other devices. */
  | { readonly do: 'set password'; readonly by: Actor; readonly logsOut: boolean; readonly password?: Given }
  | { readonly do: 'rename'; readonly by: Actor; readonly device: string; readonly name: string }
  | { readonly do: 'devices'; readonly by: Actor }
  | {
      readonly do: 'send'
      readonly by: Actor
      readonly type: number
      readonly transaction: number
      /** `*`: every device of the user. */
      readonly to: readonly Actor[]
      readonly content: number
    }
  /** From the beginning, from the device's last token, or from the one before it. */
  | { readonly do: 'sync'; readonly by: Actor; readonly since?: 'last' | 'former' }
  | { readonly do: 'changes'; readonly by: Actor; readonly since: 'last' | 'former' }
  | { readonly do: 'query'; readonly by: Actor; readonly users: readonly number[] }
  | { readonly do: 'cross-sign'; readonly by: Actor; readonly pairs: number; readonly password?: Given }
  | { readonly do: 'sign device'; readonly by: Actor; readonly device: string; readonly pairs: number }
  | { readonly do: 'put account data'; readonly by: Actor; readonly type: number; readonly content: number }
  | { readonly do: 'get account data'; readonly by: Actor; readonly type: number }
  | { readonly do: 'put filter'; readonly by: Actor; readonly limit: number }
  /** Any request, with the token of the device. `{user}` in a path is its user ID. */
  | {
      readonly do: 'request'
      readonly by: Actor
      readonly method: string
      readonly path: string
      readonly body?: object
    }
  | { readonly do: 'get filter'; readonly by: Actor; readonly filterId: number }

const user = fc.nat(USERS - 1)
const deviceId = fc.constantFrom(...DEVICE_IDS)
/** Few devices, so that most steps affect each other. */
const actor: fc.Arbitrary<Actor> = fc.record({
  user: fc.oneof({ weight: 4, arbitrary: fc.constant(0) }, { weight: 2, arbitrary: fc.constant(1) }),
  device: fc.oneof({ weight: 4, arbitrary: fc.constant('A') }, { weight: 2, arbitrary: fc.constant('B') }),
})
const algorithm = fc.oneof(
  { weight: 30, arbitrary: fc.constantFrom('signed_curve25519', 'curve25519') },
  { weight: 1, arbitrary: fc.constantFrom(...ALGORITHMS) },
)
const key: fc.Arbitrary<KeyPick> = fc.record({
  algorithm,
  id: fc.constantFrom(...KEY_IDS),
  material: fc.nat(MATERIALS - 1),
  signer: fc.oneof(
    { weight: 8, arbitrary: fc.constant('current' as const) },
    { weight: 1, arbitrary: fc.constant('none' as const) },
    { weight: 1, arbitrary: fc.nat(IDENTITIES - 1) },
  ),
})
const keys = fc.uniqueArray(key, { maxLength: 6, selector: (k) => `${k.algorithm}:${k.id}` })
const fallbacks = fc.uniqueArray(key, { maxLength: 2, selector: (k) => `${k.algorithm}:${k.id}` })
const given = fc.constantFrom('right' as const, 'right' as const, 'wrong' as const)
const since = fc.constantFrom('last' as const, 'last' as const, 'former' as const)
const by = { by: actor }

function step<Name extends Step['do'], Members extends object>(
  name: Name,
  members: { [Member in keyof Members]: fc.Arbitrary<Members[Member]> },
): fc.Arbitrary<{ readonly do: Name } & Members> {
  return fc.record(members).map((made) => ({ do: name, ...(made as Members) }))
}

/** A member that is absent in some of the records. */
function sometimes<T>(arbitrary: fc.Arbitrary<T>, oneIn: number): fc.Arbitrary<T | undefined> {
  return fc.oneof({ weight: oneIn - 1, arbitrary: fc.constant(undefined) }, { weight: 1, arbitrary })
}

/** Removes the members that are undefined. */
function compact<T extends object>(arbitrary: fc.Arbitrary<T>): fc.Arbitrary<Step> {
  return arbitrary.map(
    (made) => Object.fromEntries(Object.entries(made).filter(([, v]) => v !== undefined)) as Step,
  )
}

const STEPS: readonly fc.WeightedArbitrary<Step>[] = [
  {
    weight: 5,
    arbitrary: fc.constantFrom(500, 2_500, 2_500, 3_600_000, 86_400_000, -700).map((ms) => ({
      do: 'wait' as const,
      ms,
    })),
  },
  { weight: 1, arbitrary: fc.constant({ do: 'restart' as const }) },
  {
    weight: 3,
    arbitrary: compact(step('login', { ...by, keepsToken: sometimes(fc.constant(true), 6) })),
  },
  {
    weight: 12,
    arbitrary: compact(
      step('upload', { ...by, identity: sometimes(fc.nat(IDENTITIES - 1), 3), keys, fallbacks }),
    ),
  },
  { weight: 4, arbitrary: fc.constant({ do: 'upload again' as const }) },
  {
    weight: 10,
    arbitrary: step('claim', {
      ...by,
      targets: fc.uniqueArray(
        fc.record({ user: actor.map((a) => a.user), device: actor.map((a) => a.device), algorithm }),
        { minLength: 1, maxLength: 3, selector: (t) => `${t.user} ${t.device}` },
      ),
    }),
  },
  {
    weight: 7,
    arbitrary: compact(
      step('reset', {
        ...by,
        all: fc.boolean(),
        names: fc.array(
          fc.tuple(algorithm, fc.constantFrom(...KEY_IDS)).map((parts) => parts.join(':')),
          { maxLength: 4 },
        ),
        keys,
        fallbacks,
        requestId: sometimes(fc.nat(1), 3),
        ifVersion: sometimes(given, 6),
        ifGeneration: sometimes(given, 6),
        ifEpoch: sometimes(given, 6),
      }),
    ),
  },
  { weight: 4, arbitrary: step('pool', { ...by, limit: fc.constantFrom(1, 2, 3, 1000) }) },
  { weight: 2, arbitrary: compact(step('logout', { ...by, all: sometimes(fc.constant(true), 6) })) },
  {
    weight: 2,
    arbitrary: compact(
      step('delete devices', {
        ...by,
        devices: fc.uniqueArray(deviceId, { minLength: 1, maxLength: 2 }),
        password: sometimes(given, 2),
      }),
    ),
  },
  {
    weight: 1,
    arbitrary: compact(step('set password', { ...by, logsOut: fc.boolean(), password: sometimes(given, 2) })),
  },
  { weight: 1, arbitrary: step('rename', { ...by, device: deviceId, name: fc.constantFrom('one', 'two') }) },
  { weight: 1, arbitrary: step('devices', by) },
  {
    weight: 7,
    arbitrary: step('send', {
      ...by,
      type: fc.nat(1),
      transaction: fc.nat(2),
      to: fc.uniqueArray(
        fc.record({ user: actor.map((a) => a.user), device: fc.constantFrom('A', 'A', 'B', '*') }),
        { minLength: 1, maxLength: 3, selector: (t) => `${t.user} ${t.device}` },
      ),
      content: fc.nat(99),
    }),
  },
  { weight: 7, arbitrary: compact(step('sync', { ...by, since: sometimes(since, 2) })) },
  { weight: 2, arbitrary: step('changes', { ...by, since }) },
  {
    weight: 2,
    arbitrary: step('query', { ...by, users: fc.uniqueArray(user, { minLength: 1, maxLength: USERS }) }),
  },
  {
    weight: 1,
    arbitrary: compact(step('cross-sign', { ...by, pairs: fc.nat(1), password: sometimes(given, 2) })),
  },
  { weight: 1, arbitrary: step('sign device', { ...by, device: deviceId, pairs: fc.nat(1) }) },
  { weight: 1, arbitrary: step('put account data', { ...by, type: fc.nat(1), content: fc.nat(9) }) },
  { weight: 1, arbitrary: step('get account data', { ...by, type: fc.nat(1) }) },
  { weight: 1, arbitrary: step('put filter', { ...by, limit: fc.nat(2) }) },
  { weight: 1, arbitrary: step('get filter', { ...by, filterId: fc.nat(2) }) },
]

/** Long histories, from which shrinking removes one step after the other. */
export const histories: fc.Arbitrary<Step[]> = fc
  .array(fc.option(fc.oneof(...STEPS), { nil: undefined, freq: 50 }), { minLength: 25, maxLength: 40 })
  .map((steps) => steps.filter((made) => made !== undefined))
