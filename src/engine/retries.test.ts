import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import {
  ALL_CREDITS,
  CREDITS_ONLY,
  HOUR,
  MINUTE,
  policyOf,
  refused,
  type Scene,
  START,
  scene,
} from '../../test/scene.ts'
import { SluiceError } from '../errors.ts'
import type { PlanDocument } from '../policy/schema.ts'

// Every operation that changes something may be repeated any number of times, one after another or all at once: it gives the
// same answer, and leaves one set of entries.

const PLAN: PlanDocument = {
  guards: [
    { name: 'c', concurrency: 9, by: 'user' },
    { name: 'b', budget: 1000, per: 'month' },
  ],
  waterfall: [{ allowance: 'i', by: 'user', windows: [{ name: 'w', limit: 5, per: '5h' }] }, ALL_CREDITS],
}
const subject = { user: 'u1' }

interface Operation {
  readonly what: string
  readonly before?: (on: Scene) => Promise<unknown>
  readonly call: (on: Scene) => Promise<unknown>
}
// biome-ignore format: a row a line
const OPERATIONS: readonly Operation[] = [
  { what: 'a reserve', call: (on) => on.reserve('r', { cost: 8, subject }) },
  { what: 'a reserve of a part', call: (on) => on.reserve('r', { cost: 800, min_cost: 1, subject }) },
  { what: 'an extend', before: (on) => on.reserve('r', { cost: 8, subject }), call: (on) => on.extend('r', 1, 12) },
  { what: 'a heartbeat', before: (on) => on.reserve('r', { cost: 8, subject }), call: (on) => on.extend('r', 1, {}) },
  { what: 'a settle', before: (on) => on.reserve('r', { cost: 8, subject }), call: (on) => on.settle('r', 11) },
  { what: 'a settle of what nobody reserved', call: (on) => on.settle('r', { feature: 'job', cost: 11, subject }) },
  { what: 'a settle into debt', call: (on) => on.settle('r', { feature: 'job', cost: 500, subject }) },
  { what: 'a release', before: (on) => on.reserve('r', { cost: 8, subject }), call: (on) => on.release('r') },
  { what: 'a release of what nobody reserved', call: (on) => on.release('r') },
  { what: 'a record', call: (on) => on.record('r', { cost: 8, subject }) },
  { what: 'a refund', before: (on) => on.record('r', { cost: 8, subject }), call: (on) => on.refund('r', 'x', { amount: 3 }) },
  { what: 'a grant', call: (on) => on.grant('h', 30) },
  { what: 'a grant that repays debt', before: (on) => on.record('r', { cost: 500, subject }), call: (on) => on.grant('h', 30) },
  { what: 'a revocation', call: (on) => on.engine.revokeGrant('a', 'g', { reason: 'mistake' }) },
  { what: 'a revocation of what is held', before: (on) => on.reserve('r', { cost: 8, subject }), call: (on) => on.engine.revokeGrant('a', 'g') },
  { what: 'a new account', call: (on) => on.engine.createAccount({ id: 'new', plan: 'plan', time_zone: 'Europe/Berlin', metadata: { k: 'v' } }) },
  { what: 'a change of status', call: (on) => on.engine.patchAccount('a', { status: 'suspended' }) },
  { what: 'a change of plan', call: (on) => on.engine.patchAccount('a', { plan: 'next' }) },
  { what: 'a change of everything', call: (on) => on.engine.patchAccount('a', { plan: 'next', time_zone: 'Asia/Tokyo', metadata: { a: 'b' }, status: 'closed' }) },
  { what: 'a change of one revision', call: (on) => on.engine.patchAccount('a', { status: 'suspended' }, 1) },
  { what: 'an exception', call: (on) => on.override('b', 5) },
  { what: 'an exception for one user', call: (on) => on.override('i/w', 50, { subject, until_at: START + HOUR }) },
  { what: 'an exception at one revision', call: (on) => on.engine.overrideLimits('a', { overrides: [{ name: 'b', limit: 5 }], reason: 'x' }, 1) },
  { what: 'an exception taken away', before: (on) => on.override('b', 5), call: (on) => on.override('b', null) },
  { what: 'a policy', call: (on) => on.engine.publishPolicy(JSON.stringify(policyOf(CREDITS_ONLY)), undefined) },
  { what: 'a policy in place of one version', call: (on) => on.engine.publishPolicy(JSON.stringify(policyOf(CREDITS_ONLY)), 1) },
  { what: 'a key revoked', before: (on) => on.engine.createKey({ id: 'k', role: 'read' }), call: (on) => on.engine.revokeKey('k') },
  { what: 'a repair of the clock', before: async (on) => { await on.record('r', { cost: 0, subject }); on.after(-HOUR) }, call: (on) => on.engine.repairClock('a') },
]

async function made(before: Operation['before']): Promise<Scene> {
  const on = await scene(PLAN, {
    policy: { plans: { next: { ...CREDITS_ONLY, grants: [{ kind: 'free', amount: 7 }] } } },
  })
  await on.grant('g', 100)
  await before?.(on)
  return on
}

/** Whether an answer is the first does not count here: that is told, and is the only difference. */
function plain(answer: unknown): unknown {
  const { replayed, ...rest } = answer as { replayed?: boolean }
  return rest
}

/** How many entries there are of each kind, in all accounts. */
async function counts(on: Scene): Promise<Record<string, number>> {
  const { items } = await on.engine.journal({ limit: 500 })
  const kinds: Record<string, number> = {}
  for (const { kind, account } of items) kinds[`${account} ${kind}`] = (kinds[`${account} ${kind}`] ?? 0) + 1
  return kinds
}

describe('an operation that is repeated', () => {
  for (const { what, before, call } of OPERATIONS) {
    test(`${what}: one after another it is answered the same, and nothing changes after the first`, async () => {
      const on = await made(before)
      const first = await call(on)
      const after = await on.everything()
      for (let n = 0; n < 3; n++) {
        on.after(MINUTE)
        assert.deepEqual(plain(await call(on)), plain(first))
        assert.deepEqual(await on.everything(), after)
      }
      await on.agree()
    })
    test(`${what}: many at once are answered the same, and leave the entries of one`, async () => {
      const alone = await made(before)
      const first = await call(alone)
      const on = await made(before)
      const answers = await Promise.all(Array.from({ length: 20 }, () => call(on)))
      for (const answer of answers) assert.deepEqual(plain(answer), plain(answers[0]))
      if (typeof first === 'object' && first !== null && 'replayed' in first)
        assert.equal(answers.filter((answer) => !(answer as { replayed: boolean }).replayed).length, 1)
      assert.deepEqual(await counts(on), await counts(alone))
      await on.agree()
    })
  }
})

describe('a key is made once, since its secret is told once', () => {
  test('again it is a conflict, which tells no secret', async () => {
    const on = await made(undefined)
    const key = { id: 'k', role: 'meter', account: 'a' } as const
    const { secret } = await on.engine.createKey(key)
    const before = await on.everything()
    const { detail, message } = await refused('conflict', '/id', () => on.engine.createKey(key))
    assert.ok(!JSON.stringify([detail, message]).includes(secret))
    assert.deepEqual(await on.everything(), before)
    assert.equal((await on.engine.authenticate(secret))?.id, 'k', 'the first stays valid')
  })
  test('of many at once, one is made', async () => {
    const on = await made(undefined)
    const key = { id: 'k', role: 'read' } as const
    const answers = await Promise.allSettled(Array.from({ length: 20 }, () => on.engine.createKey(key)))
    const done = answers.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []))
    assert.equal(done.length, 1)
    for (const one of answers)
      if (one.status === 'rejected')
        assert.ok(one.reason instanceof SluiceError && one.reason.code === 'conflict')
    assert.equal((await on.engine.authenticate(done[0]?.secret ?? ''))?.id, 'k')
    assert.equal((await counts(on))['@system change'], 2, 'the policy, and the key')
  })
})

describe('the same id with another meaning is a conflict, and changes nothing', () => {
  // biome-ignore format: a row a line
  const rows: readonly [what: string, call: (on: Scene) => Promise<unknown>, others: readonly ((on: Scene) => Promise<unknown>)[]][] = [
    ['a reserve', (on) => on.reserve('r', { cost: 8, subject }), [
      (on) => on.reserve('r', { cost: 9, subject }),
      (on) => on.reserve('r', { cost: 8, subject: { user: 'u2' } }),
      (on) => on.reserve('r', { cost: 8, subject, feature: 'other' }),
      (on) => on.reserve('r', { cost: 8, subject, attributes: { a: 'b' } }),
      (on) => on.reserve('r', { cost: 8, subject, min_cost: 1 }),
    ]],
    ['a record', (on) => on.record('r', { cost: 8, subject }), [
      (on) => on.record('r', { cost: 9, subject }),
      (on) => on.record('r', { usage: { units: 8 }, subject }),
      (on) => on.settle('r', { feature: 'job', cost: 8, subject }),
      (on) => on.reserve('r', { cost: 8, subject }),
    ]],
    ['a grant', (on) => on.grant('h', 30), [
      (on) => on.grant('h', 31),
      (on) => on.grant('h', 30, { kind: 'promo' }),
      (on) => on.grant('h', 30, { priority: 1 }),
      (on) => on.grant('h', 30, { features: ['job'] }),
      (on) => on.grant('h', 30, { subjects: { user: 'u1' } }),
      (on) => on.grant('h', 30, { expires_at: START + HOUR }),
    ]],
    ['an account', (on) => on.engine.createAccount({ id: 'n', plan: 'plan' }), [
      (on) => on.engine.createAccount({ id: 'n', plan: 'next' }),
      (on) => on.engine.createAccount({ id: 'n', plan: 'plan', time_zone: 'Asia/Tokyo' }),
      (on) => on.engine.createAccount({ id: 'n', plan: 'plan', anchor_at: START }),
      (on) => on.engine.createAccount({ id: 'n', plan: 'plan', metadata: { a: 'b' } }),
    ]],
  ]
  for (const [what, call, others] of rows) {
    test(what, async () => {
      const on = await made(undefined)
      const first = await call(on)
      const before = await on.everything()
      for (const other of others) {
        const { detail } = await refused('conflict', undefined, () => other(on))
        assert.deepEqual(plain(detail.first), plain(first), 'it carries the first answer')
      }
      assert.deepEqual(await on.everything(), before)
    })
  }
  test('the order in which fields are sent is no part of the meaning', async () => {
    const on = await made(undefined)
    await on.reserve('r', {
      feature: 'task',
      estimate: { units: 1, tokens: 2 },
      subject: { user: 'u1', team: 't' },
      attributes: { a: '1', b: 2 },
    })
    const again = await on.reserve('r', {
      attributes: { b: '2', a: 1 },
      subject: { team: 't', user: 'u1' },
      estimate: { tokens: '2', units: '1' },
      feature: 'task',
    })
    assert.equal(again.replayed, true)
  })
  test('ids belong to their account', async () => {
    const on = await made(undefined)
    const other = await on.beside('b')
    await other.grant('g', 1)
    await on.reserve('r', { cost: 3, subject })
    assert.partialDeepStrictEqual(await other.reserve('r', { cost: 1, subject }), {
      replayed: false,
      granted: '1',
    })
  })
})

test('a precondition that no longer holds is refused, where something would change', async () => {
  const on = await made(undefined)
  await on.engine.patchAccount('a', { status: 'suspended' }, 1)
  const before = await on.everything()
  await refused('precondition_failed', undefined, () => on.engine.patchAccount('a', { status: 'active' }, 1))
  await refused('precondition_failed', undefined, () =>
    on.engine.overrideLimits('a', { overrides: [{ name: 'b', limit: 5 }], reason: 'x' }, 1),
  )
  await refused('precondition_failed', undefined, () =>
    on.engine.publishPolicy(JSON.stringify(policyOf(CREDITS_ONLY)), 0),
  )
  assert.deepEqual(await on.everything(), before)
})

describe('many callers on one account', () => {
  test('five at once of 50 on a limit of 100 admit exactly two', async () => {
    const on = await scene(CREDITS_ONLY)
    await on.grant('g', 100)
    const answers = await Promise.all(Array.from({ length: 5 }, (_, n) => on.reserve(`r${n}`, 50)))
    assert.equal(answers.filter(({ outcome }) => outcome === 'allow').length, 2)
    await on.agree()
  })
  test('a thousand never pass its limits, and all exits leave nothing held', async () => {
    const on = await scene({
      ...PLAN,
      guards: [
        { name: 'c', concurrency: 40, by: 'user' },
        { name: 'b', budget: 90, per: 'month' },
      ],
    })
    await on.grant('g', 300)
    const work = async (n: number): Promise<number> => {
      const answer = await on.reserve(`r${n}`, {
        cost: 1 + (n % 3),
        min_cost: 1,
        subject: { user: `u${n % 4}` },
      })
      if (answer.outcome !== 'allow' && answer.outcome !== 'partial') return 0
      if (n % 5 === 0) await on.release(`r${n}`)
      return n % 5 === 0 ? 0 : Number((await on.settle(`r${n}`, Math.min(1, Number(answer.granted)))).charged)
    }
    const charged = await Promise.all(Array.from({ length: 1000 }, (_, n) => work(n)))
    const { limits, open_holds, credits } = await on.view()
    const budget = limits.find(({ name }) => name === 'b')
    assert.deepEqual([open_holds, credits.held, budget?.held], [0, '0', '0'])
    assert.equal(
      Number(budget?.used),
      charged.reduce((sum, one) => sum + one, 0),
    )
    assert.ok(Number(budget?.used) <= 90)
    await on.agree()
  })
})

describe('whose and for what, named by one caller and left out by another, is the same', () => {
  const whole = { subject, feature: 'job', cost: '8' }
  test('of a request that was reserved', async () => {
    for (const first of [{ cost: '8' }, whole]) {
      const on = await scene(PLAN)
      await on.grant('g', 100)
      await on.reserve('r', { cost: '8', subject })
      const answer = await on.settle('r', first)
      for (const again of [{ cost: '8' }, whole, { cost: '8', subject }, { cost: '8', feature: 'job' }])
        assert.deepEqual(await on.settle('r', again), { ...answer, replayed: true })
      await refused('conflict', '/subject', () => on.settle('r', { ...whole, subject: { user: 'u2' } }))
      await refused('conflict', '/feature', () => on.settle('r', { ...whole, feature: 'other' }))
      await refused('conflict', '/request_id', () => on.settle('r', { ...whole, cost: '9' }))
    }
  })
  test('but of one that was recorded the subject is only what was named', async () => {
    const on = await scene(PLAN)
    await on.record('r', whole)
    await refused('conflict', '/subject', () => on.record('r', { cost: '8' }))
    await refused('conflict', '/subject', () => on.record('r', { ...whole, subject: { user: 'u2' } }))
    await refused('conflict', '/feature', () => on.record('r', { ...whole, feature: 'other' }))
    assert.equal((await on.record('r', whole)).replayed, true)
  })
})
