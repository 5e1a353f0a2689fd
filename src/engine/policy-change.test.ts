import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import {
  ALL_CREDITS,
  CREDITS_ONLY,
  DAY,
  during,
  FEATURES,
  HOUR,
  MINUTE,
  refused,
  type Scene,
  START,
  scene,
} from '../../test/scene.ts'
import type { GuardDocument, PlanDocument } from '../policy/schema.ts'
import type { WindowView } from '../wire.ts'

type Window = Extract<PlanDocument['waterfall'][number], { windows: unknown }>['windows'][number]
const allowance = (limit: number, more: Partial<Window> = {}): PlanDocument => ({
  waterfall: [{ allowance: 'i', windows: [{ name: 'w', limit, per: '5h', ...more }] }],
})
const USER = { user: 'u1' }

async function windowOf(on: Scene): Promise<WindowView> {
  const [first] = (await on.view(USER)).allowances
  return first?.windows[0] ?? assert.fail('no window')
}

describe('a new limit holds at once: what is used stays, what is left is never below zero', () => {
  // biome-ignore format: a row a line
  const rows: readonly [what: string, plan: (limit: number) => PlanDocument][] = [
    ['an allowance', (limit) => allowance(limit)],
    ['overage', (limit) => ({ waterfall: [{ overage: { limit, per: 'month' } }] })],
    ['a budget', (limit) => ({ ...CREDITS_ONLY, guards: [{ name: 'b', budget: limit, per: 'month' }] })],
    ['a rate over cost', (limit) => ({ ...CREDITS_ONLY, guards: [{ name: 'r', rate: { meter: 'cost', limit, per: '30d', algorithm: 'fixed' } }] })],
  ]
  for (const [what, plan] of rows) {
    test(what, async () => {
      const on = await scene(plan(20))
      await on.grant('g', 1000)
      await on.record('r', 6)
      await on.reserve('s', 4)
      const left = async () => {
        const { limits } = await on.reserve('probe', { cost: 0, dry_run: true })
        const one = limits.find(({ kind }) => kind !== 'credits')
        return `${one?.limit}: ${one?.remaining}`
      }
      assert.equal(await left(), '20: 10')
      await on.publish(plan(8))
      assert.equal(await left(), '8: 0')
      assert.notEqual((await on.reserve('t', 1)).outcome, 'allow')
      assert.equal((await on.settle('s', 4)).charged, '4', 'what is held is charged as it was promised')
      assert.equal(await left(), '8: 0')
      await on.publish(plan(30))
      assert.equal(await left(), '30: 20')
      assert.equal((await on.reserve('t', 20)).outcome, 'allow')
      await on.agree()
    })
  }
  test('what runs at once', async () => {
    const plan = (concurrency: number): PlanDocument => ({
      ...CREDITS_ONLY,
      guards: [{ name: 'c', concurrency }],
    })
    const on = await scene(plan(3))
    for (const id of ['r', 's', 't']) await on.reserve(id, 0)
    await on.publish(plan(1))
    assert.partialDeepStrictEqual((await on.view()).limits, [{ limit: '1', held: '3', remaining: '0' }])
    for (const id of ['r', 's']) {
      await on.release(id)
      assert.equal((await on.reserve('u', 0)).reason, 'concurrency_full')
    }
    await on.release('t')
    assert.equal((await on.reserve('u', 0)).outcome, 'allow')
    await on.agree()
  })
})

describe('a new length or anchor begins when the present window ends', () => {
  // biome-ignore format: a row a line
  const rows: readonly [what: string, next: Partial<Window>, nextEnd: number][] = [
    ['shorter', { per: '2h' }, START + 7 * HOUR],
    ['longer', { per: '3d' }, START + 5 * HOUR + 3 * DAY],
    ['by the calendar', { per: 'day' }, START + DAY / 2],
    ['from the account’s anchor', { per: '4h', anchor: 'account' }, START + 8 * HOUR],
  ]
  for (const [what, next, nextEnd] of rows) {
    test(what, async () => {
      const on = await scene(allowance(10))
      await on.record('r', 6)
      on.after(HOUR)
      await on.publish(allowance(10, next))
      await on.record('s', 1)
      assert.partialDeepStrictEqual(await windowOf(on), { used: '7', resets_at: START + 5 * HOUR })
      on.clock.now = START + 5 * HOUR - 1
      assert.equal((await windowOf(on)).used, '7')
      on.after(1)
      assert.equal((await windowOf(on)).used, '0')
      await on.record('t', 2)
      assert.partialDeepStrictEqual(await windowOf(on), { used: '2', resets_at: nextEnd })
      await on.agree()
    })
  }
})

describe('state of a removed name goes when its last hold has', () => {
  const other: PlanDocument = { waterfall: [ALL_CREDITS] }
  test('at once without a hold: added back, it starts anew', async () => {
    const on = await scene(allowance(10))
    await on.record('r', 6)
    on.after(MINUTE)
    await on.publish(other)
    await on.record('s', 0)
    await on.publish(allowance(10))
    assert.equal((await windowOf(on)).used, '0')
    await on.record('t', 1)
    assert.equal((await windowOf(on)).resets_at, START + MINUTE + 5 * HOUR)
    await on.agree()
  })
  test('kept with a hold: added back meanwhile, it has what it had', async () => {
    const on = await scene(allowance(10))
    await on.record('r', 6)
    await on.reserve('h', 2)
    on.after(MINUTE)
    await on.publish(other)
    await on.record('s', 0)
    await on.publish(allowance(10))
    assert.partialDeepStrictEqual(await windowOf(on), { used: '6', held: '2' })
    await on.settle('h', 2)
    assert.partialDeepStrictEqual(await windowOf(on), { used: '8', held: '0', resets_at: START + 5 * HOUR })
    await on.agree()
  })
  test('and goes with that hold', async () => {
    const on = await scene(allowance(10))
    await on.reserve('h', 2)
    on.after(MINUTE)
    await on.publish(other)
    assert.equal((await on.settle('h', 2)).charged, '2')
    await on.publish(allowance(10))
    assert.equal((await windowOf(on)).used, '0')
    await on.agree()
  })
})

describe('a name that means something else from now on', () => {
  // biome-ignore format: a row a line
  const guards: readonly GuardDocument[] = [
    { name: 'x', rate: { meter: 'requests', limit: 9, per: '1h' } },
    { name: 'x', rate: { meter: 'cost', limit: 90, per: '1h', algorithm: 'sliding' } },
    { name: 'x', rate: { meter: 'units', limit: 90, per: '2h', algorithm: 'fixed' }, by: 'user' },
    { name: 'x', concurrency: 9 },
    { name: 'x', concurrency: 9, by: 'user' },
    { name: 'x', budget: 90, per: 'month' },
    { name: 'x', budget: 90, per: '5h', anchor: 'first_use', by: 'user' },
  ]
  for (const before of guards) {
    test(`was ${JSON.stringify(before)}`, async () => {
      for (const after of guards) {
        await during(JSON.stringify(after), async () => {
          const on = await scene({ ...CREDITS_ONLY, guards: [before] })
          await on.grant('g', 100)
          const asked = { feature: 'task', estimate: { units: 5 }, subject: USER }
          for (const id of ['r', 's', 't']) await on.reserve(id, asked)
          on.after(1)
          await on.publish({ ...CREDITS_ONLY, guards: [after] })
          assert.equal((await on.extend('r', 1, { estimate: { units: 6 } })).outcome, 'allow')
          await on.agree()
          assert.equal((await on.settle('r', { usage: { units: 8 } })).charged, '8')
          assert.equal((await on.release('s')).returned, '5')
          on.after(10 * MINUTE)
          assert.equal((await on.reserve('u', asked)).outcome, 'allow')
          await on.release('u')
          await on.agree()
          const { open_holds, credits, limits } = await on.view(USER)
          assert.deepEqual([open_holds, credits.held, limits.map(({ held }) => held)], [0, '0', ['0']])
        })
      }
    })
  }
})

describe('one customer’s exception', () => {
  const plan: PlanDocument = {
    guards: [
      { name: 'c', concurrency: 1, by: 'user' },
      { name: 'r', rate: { meter: 'requests', limit: 1, per: '30d', algorithm: 'fixed' } },
    ],
    waterfall: [
      { allowance: 'i', by: 'user', windows: [{ name: 'w', limit: 10, per: '5h' }] },
      { overage: { limit: 5, per: 'month' } },
    ],
  }
  const limitOf = async (on: Scene, name: string, subject = USER): Promise<string | undefined> =>
    (await on.reserve('probe', { cost: 0, dry_run: true, subject })).limits.find((one) => one.name === name)
      ?.limit

  for (const [name, written, to] of [
    ['i/w', '10', 25],
    ['c', '1', 4],
    ['r', '1', 6],
    ['overage', '5', 0],
  ] as const) {
    test(`replaces ${name} for the account, until it is taken away`, async () => {
      const on = await scene(plan)
      await on.override(name, to)
      assert.equal(await limitOf(on, name), String(to))
      await on.override(name, null)
      assert.equal(await limitOf(on, name), written)
    })
    test(`replaces ${name} until its instant`, async () => {
      const on = await scene(plan)
      await on.override(name, to, { until_at: START + HOUR })
      on.after(HOUR - 1)
      assert.equal(await limitOf(on, name), String(to))
      assert.equal((await on.view()).overrides.length, 1)
      on.after(1)
      assert.equal(await limitOf(on, name), written)
      assert.equal((await on.view()).overrides.length, 0)
    })
  }
  test('for one subject goes before the account’s, and leaves others alone', async () => {
    const on = await scene(plan)
    await on.override('i/w', 20)
    await on.override('i/w', 30, { subject: USER })
    assert.equal(await limitOf(on, 'i/w'), '30')
    assert.equal(await limitOf(on, 'i/w', { user: 'u2' }), '20')
    await on.override('i/w', null, { subject: USER })
    assert.equal(await limitOf(on, 'i/w'), '20')
  })
  test('survives a new policy, by its name', async () => {
    const on = await scene(plan)
    await on.override('i/w', 20)
    await on.publish({ ...plan, guards: [] })
    assert.equal(await limitOf(on, 'i/w'), '20')
  })
  test('can be taken away when the plan has lost its name, and does not come back with it', async () => {
    const on = await scene(plan)
    await on.override('c', 5)
    await on.publish({ ...plan, guards: [] })
    assert.deepEqual((await on.override('c', null)).overrides, [])
    await on.publish(plan)
    assert.deepEqual((await on.view()).overrides, [])
  })
  test('that is over before it begins is refused', async () => {
    const on = await scene(plan)
    await on.override('r', 5, { until_at: START + HOUR })
    const kept = await on.kept()
    for (const until_at of [1, START - 1, START])
      await refused('invalid', '/overrides/0/until_at', () => on.override('i/w', 25, { until_at }))
    assert.deepEqual(await on.kept(), kept)
  })
  test('that lowers a rate for all counts with the quiet pass too: what it still counts is not forgotten', async () => {
    const rate = { meter: 'requests', limit: 60, per: '1h' } as const
    const on = await scene({ waterfall: [ALL_CREDITS], guards: [{ name: 'r', rate, by: 'user' }] })
    await on.grant('paid', 10)
    await on.override('r', 1)
    const ask = async (id: string) => (await on.reserve(id, { cost: 1, subject: USER })).outcome
    assert.equal(await ask('first'), 'allow')
    await on.release('first')
    await on.record('counted', { cost: 1, subject: USER })
    on.after(30 * MINUTE)
    await on.engine.tidyUp()
    assert.notEqual(await ask('second'), 'allow')
    on.after(2 * HOUR)
    await on.engine.tidyUp()
    assert.equal(await ask('third'), 'allow')
  })
  test('counts what comes in whole numbers in these, and no more open holds than a policy may say', async () => {
    const on = await scene(plan)
    await refused('invalid', '/overrides/0/limit', () => on.override('c', 2_001))
    for (const name of ['c', 'r'])
      await refused('invalid', '/overrides/0/limit', () => on.override(name, 0.5))
    await on.override('r', 50_000)
    await on.publish({ ...plan, guards: [{ name: 'r', concurrency: 3 }] })
    assert.equal((await on.view()).limits.find(({ name }) => name === 'r')?.limit, '2000')
  })
  test('is used by decisions at once, up and down', async () => {
    const on = await scene(plan)
    const reserve = (id: string, cost: number) => on.reserve(id, { cost, subject: USER })
    await on.override('r', 100)
    await on.override('c', 5)
    await on.override('overage', 0)
    await on.override('i/w', 4)
    assert.equal((await reserve('r', 5)).reason, 'allowance_spent')
    await on.override('i/w', 40)
    assert.equal((await reserve('r', 40)).outcome, 'allow')
    await on.override('i/w', 1)
    assert.equal((await on.settle('r', 40)).charged, '40')
    await on.agree()
  })
  // biome-ignore format: a row a line
  const wrong: readonly [what: string, name: string, more: object][] = [
    ['a name that nothing has', 'nothing', {}],
    ['an allowance without its window', 'i', {}],
    ['a limit that this dimension does not count', 'r', { subject: USER }],
    ['a limit of another dimension', 'c', { subject: { team: 't' } }],
  ]
  for (const [what, name, more] of wrong) {
    test(`of ${what} is refused`, async () => {
      const on = await scene(plan)
      const kept = await on.kept()
      await refused('invalid', '/overrides/0/name', () => on.override(name, 1, more))
      assert.deepEqual(await on.kept(), kept)
    })
  }
})

describe('what a policy no longer has', () => {
  test('a plan: its accounts are told so, and what is open still ends as it was promised', async () => {
    const on = await scene(allowance(10))
    for (const id of ['r', 's', 't']) await on.reserve(id, 2)
    await on.engine.publishPolicy(
      JSON.stringify({ features: FEATURES, plans: { other: CREDITS_ONLY } }),
      undefined,
    )
    await refused('plan_unknown', '/account', () => on.reserve('u', 1))
    assert.equal((await on.settle('r', 1)).charged, '1')
    assert.equal((await on.release('s')).returned, '2')
    on.after(HOUR)
    await on.engine.sweep()
    assert.equal((await on.engine.explain('a', 't')).state, 'expired_released')
    await on.agree()
    await on.engine.patchAccount('a', { plan: 'other' })
    assert.equal((await on.reserve('u', 0)).outcome, 'allow')
  })
  test('a feature: what is open keeps its prices', async () => {
    const on = await scene(CREDITS_ONLY)
    await on.grant('g', 100)
    await on.reserve('r', { feature: 'task', estimate: { units: 5 } })
    await on.publish(CREDITS_ONLY, { features: { job: {} } })
    await refused('feature_unknown', '/feature', () =>
      on.reserve('s', { feature: 'task', estimate: { units: 5 } }),
    )
    assert.equal((await on.extend('r', 1, { estimate: { units: 7 } })).granted, '7')
    assert.equal((await on.settle('r', { usage: { units: 6 } })).charged, '6')
  })
  test('an answer tells the version that decided', async () => {
    const on = await scene(CREDITS_ONLY)
    const first = await on.reserve('r', 0)
    await on.publish(allowance(1))
    assert.equal((await on.reserve('r', 0)).policy_version, first.policy_version, 'the first answer again')
    assert.equal((await on.reserve('s', 0)).policy_version, first.policy_version + 1)
  })
})
