import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import {
  ALL_CREDITS,
  CREDITS_ONLY,
  DAY,
  HOUR,
  MINUTE,
  refused,
  type Scene,
  START,
  scene,
} from '../../test/scene.ts'
import type { PlanDocument } from '../policy/schema.ts'
import type { ExtendRequest } from '../wire.ts'

const PLAN: PlanDocument = {
  waterfall: [{ allowance: 'included', windows: [{ name: '7d', limit: 12, per: '7d' }] }, ALL_CREDITS],
  hold: { ttl: '10m', max_lifetime: '1h' },
}
async function held(plan: PlanDocument = PLAN, credits = 100): Promise<Scene> {
  const on = await scene(plan)
  if (credits > 0) await on.grant('g', credits)
  await on.reserve('r', { feature: 'task', estimate: { units: 10 } })
  return on
}

describe('an extend asks for a new total', () => {
  // biome-ignore format: a row a line
  const rows: readonly [what: string, asked: Partial<ExtendRequest>, outcome: string, granted: string, from: string][] = [
    ['less than is held changes nothing', { cost: 5 }, 'allow', '10', 'allowance:included 10'],
    ['nothing changes nothing', { cost: 0 }, 'allow', '10', 'allowance:included 10'],
    ['the same changes nothing', { cost: 10 }, 'allow', '10', 'allowance:included 10'],
    ['more is held from the same source', { cost: 12 }, 'allow', '12', 'allowance:included 12'],
    ['and then from the next', { cost: 15 }, 'allow', '15', 'allowance:included 12, grant:g 3'],
    ['as quantities, at their price', { estimate: { units: 15 } }, 'allow', '15', 'allowance:included 12, grant:g 3'],
    ['in other quantities, at their price', { estimate: { units: 10, tokens: 20 } }, 'allow', '12', 'allowance:included 12'],
    ['without an amount it only lives on', {}, 'allow', '10', 'allowance:included 10'],
    ['more than there is', { cost: 113 }, 'deny', '10', 'allowance:included 10'],
    ['more than there is, where a part is welcome', { cost: 113, min_cost: 112 }, 'partial', '112', 'allowance:included 12, grant:g 100'],
    ['and where the part is too small', { cost: 200, min_cost: '112.000001' }, 'deny', '10', 'allowance:included 10'],
    ['a part in whole quantities', { estimate: { units: 200 }, min_cost: 1 }, 'partial', '112', 'allowance:included 12, grant:g 100'],
  ]
  for (const [what, asked, outcome, granted, from] of rows) {
    test(what, async () => {
      const on = await held()
      const answer = await on.extend('r', 1, asked)
      assert.deepEqual(
        {
          outcome: answer.outcome,
          granted: answer.granted,
          from: answer.from.map(({ source, amount }) => `${source} ${amount}`).join(', '),
        },
        { outcome, granted, from },
      )
      await on.agree()
      assert.equal((await on.release('r')).returned, granted)
      assert.deepEqual(await on.reading(), { g: '100' })
      await on.agree()
    })
  }

  test('at the prices of its reserve, whatever has been published since', async () => {
    const on = await held()
    await on.publish(PLAN, {
      features: { task: { rate_card: [{ per_unit: { units: 7 } }] }, job: {}, other: {} },
    })
    assert.equal((await on.extend('r', 1, { estimate: { units: 15 } })).granted, '15')
  })
  test('the rate over cost counts the difference, and all of it goes back', async () => {
    const guards = [
      { name: 'cost', rate: { meter: 'cost', limit: 100, per: '30d', algorithm: 'fixed' } },
    ] as const
    const on = await held({ ...PLAN, guards })
    await on.extend('r', 1, 15)
    assert.equal((await on.reading()).cost, '15')
    await on.settle('r', { usage: { units: 3 } })
    assert.equal((await on.reading()).cost, '3')
  })
})

describe('steps count 1, 2, 3…, and the last answer is kept', () => {
  test('a repeat of the last step is answered again', async () => {
    const on = await held()
    await on.extend('r', 1, 11)
    const second = await on.extend('r', 2, 15)
    on.after(MINUTE)
    const kept = await on.kept()
    assert.deepEqual(await on.extend('r', 2, 15), { ...second, replayed: true })
    assert.deepEqual(await on.kept(), kept)
  })
  test('with another meaning it is a conflict that carries the first answer', async () => {
    const on = await held()
    const first = await on.extend('r', 1, 15)
    for (const other of [
      { cost: 16 },
      { estimate: { units: 15 } },
      {},
      { cost: 15, min_cost: 1 },
      { cost: 15, used: { units: 1 } },
    ]) {
      const { detail } = await refused('conflict', '/request_id', () => on.extend('r', 1, other))
      assert.deepEqual(detail.first, { ...first, replayed: true })
    }
  })
  test('the length asked for is no part of its meaning', async () => {
    const on = await held()
    const first = await on.extend('r', 1, { cost: 15, ttl_ms: MINUTE })
    assert.deepEqual(await on.extend('r', 1, { cost: 15, ttl_ms: HOUR }), { ...first, replayed: true })
  })
  test('a refused step leaves no trace, and may be tried again', async () => {
    const on = await held()
    assert.equal((await on.extend('r', 1, 200)).outcome, 'deny')
    await on.grant('more', 100)
    assert.equal((await on.extend('r', 1, 200)).outcome, 'allow')
  })
  // biome-ignore format: a row a line
  const outOfOrder: readonly [after: number, step: number][] = [[0, 2], [0, 3], [1, 3], [2, 1], [2, 4]]
  for (const [after, step] of outOfOrder) {
    test(`${step} does not follow ${after}`, async () => {
      const on = await held()
      for (let n = 1; n <= after; n++) await on.extend('r', n, 10 + n)
      const kept = await on.kept()
      const error = await refused('step_out_of_order', '/step', () => on.extend('r', step, 20))
      assert.match(error.detail.remedy ?? '', new RegExp(`${after + 1}`))
      assert.deepEqual(await on.kept(), kept)
    })
  }
  for (const step of [0, -1, 1.5, Number.NaN, '1', null, undefined]) {
    test(`${step} is no step`, async () => {
      const on = await held()
      await refused('invalid', '/step', () =>
        on.engine.extend({ request_id: 'r', account: 'a', step: step as never }),
      )
    })
  }
})

describe('the end of a hold moves', () => {
  // biome-ignore format: a row a line
  const rows: readonly [what: string, afterMs: number, asked: Partial<ExtendRequest>, endMs: number][] = [
    ['by the plan’s time to live, where none is asked', 9 * MINUTE, {}, 19 * MINUTE],
    ['with an amount as well', 9 * MINUTE, { cost: 12 }, 19 * MINUTE],
    ['by what is asked', 5 * MINUTE, { ttl_ms: 20 * MINUTE }, 25 * MINUTE],
    ['up to the longest life the plan gives', 5 * MINUTE, { ttl_ms: 3 * HOUR }, HOUR],
  ]
  for (const [what, afterMs, asked, endMs] of rows) {
    test(what, async () => {
      const on = await held({ ...PLAN, guards: [{ name: 'one', concurrency: 1 }] })
      on.after(afterMs)
      assert.equal((await on.extend('r', 1, asked)).expires_at, START + endMs)
      await on.agree()
      on.clock.now = START + endMs - 1
      assert.equal((await on.reserve('s', 1)).reason, 'concurrency_full')
      on.after(1)
      assert.equal((await on.reserve('s', 1)).outcome, 'allow')
      assert.equal((await on.extend('r', 2, {})).reason, 'hold_closed')
      await on.agree()
    })
  }
  test('by many heartbeats, and never beyond the longest life', async () => {
    const on = await held()
    for (let step = 1; step <= 12; step++) {
      on.after(5 * MINUTE - 1)
      const { expires_at } = await on.extend('r', step, {})
      assert.equal(expires_at, Math.min(START + HOUR, on.clock.now + 10 * MINUTE))
    }
  })
  test('a refused extend leaves the end where it was', async () => {
    const on = await held()
    on.after(5 * MINUTE)
    assert.equal((await on.extend('r', 1, { cost: 500, ttl_ms: HOUR })).expires_at, START + 10 * MINUTE)
  })
  test('a reserve may ask for a shorter life, and for none beyond the longest', async () => {
    const on = await held()
    assert.equal((await on.reserve('s', { cost: 1, ttl_ms: 1 })).expires_at, START + 1)
    assert.equal((await on.reserve('t', { cost: 1, ttl_ms: 5 * HOUR })).expires_at, START + HOUR)
  })
})

describe('progress', () => {
  const plan: PlanDocument = { ...PLAN, hold: { ttl: '10m', on_expiry: 'charge' } }
  test('is what the end charges: what was told last', async () => {
    const on = await held(plan)
    await on.extend('r', 1, { used: { units: 2 } })
    await on.extend('r', 2, { used: { units: 5, tokens: 10 } })
    await on.extend('r', 3, { cost: 20 })
    on.after(10 * MINUTE)
    await on.engine.sweep()
    const { state, charged } = await on.engine.explain('a', 'r')
    assert.deepEqual({ state, charged }, { state: 'expired_charged', charged: '6' })
    await on.agree()
  })
  test('keeps its price, also when the end comes after new prices', async () => {
    const on = await held(plan)
    await on.extend('r', 1, { used: { units: 5 } })
    await on.publish(plan, {
      features: { task: { rate_card: [{ per_unit: { units: 7 } }] }, job: {}, other: {} },
    })
    on.after(10 * MINUTE)
    await on.engine.sweep()
    assert.equal((await on.engine.explain('a', 'r')).charged, '5')
  })
  test('the end’s rule is that of the reserve', async () => {
    const on = await held(plan)
    await on.publish(PLAN)
    on.after(10 * MINUTE)
    await on.engine.sweep()
    assert.equal((await on.engine.explain('a', 'r')).state, 'expired_charged')
  })
})

test('a day of extends, one a minute, leaves small cells and books that agree', async () => {
  const on = await scene({
    ...CREDITS_ONLY,
    guards: [
      { name: 'b', budget: 5000, per: 'hour' },
      { name: 'c', rate: { meter: 'cost', limit: 100_000, per: '1h' } },
    ],
    waterfall: [
      {
        allowance: 'hourly',
        windows: [
          { name: 'h', limit: 100, per: 'hour' },
          { name: '5h', limit: 400, per: '5h' },
        ],
      },
      ALL_CREDITS,
      { overage: { limit: 1, per: 'hour' } },
    ],
  })
  await on.grant('g', 100_000)
  await on.reserve('r', { cost: 1 })
  for (let step = 1; step < 24 * 60; step++) {
    on.after(MINUTE)
    const answer = await on.extend('r', step, { cost: 1 + 3 * step, used: { units: step } })
    assert.equal(answer.outcome, 'allow', `${step}: ${answer.reason}`)
  }
  const { cells } = await on.kept()
  for (const [key, cell] of Object.entries(cells)) {
    const bytes = JSON.stringify(cell).length
    assert.ok(bytes <= 1536, `${key} has ${bytes} bytes`)
  }
  assert.ok(on.clock.now < START + DAY)
  const settled = await on.settle('r', 1000)
  assert.equal(settled.charged, '1000')
  await on.agree()
})
