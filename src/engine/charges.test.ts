import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import {
  ALL_CREDITS,
  CREDITS_ONLY,
  DAY,
  FEATURES,
  HOUR,
  MINUTE,
  refused,
  type Scene,
  START,
  scene,
} from '../../test/scene.ts'
import type { PlanDocument, PolicyDocument } from '../policy/schema.ts'
import type { RecordRequest, SettleRequest } from '../wire.ts'

const dearer: PolicyDocument['features'] = {
  ...FEATURES,
  task: { rate_card: [{ when: { size: 'large' }, per_unit: { units: 5 } }, { per_unit: { units: 3 } }] },
}
async function held(plan: PlanDocument = CREDITS_ONLY): Promise<Scene> {
  const on = await scene(plan)
  await on.grant('g', 100)
  await on.reserve('r', { feature: 'task', estimate: { units: 10 }, subject: { user: 'u1' } })
  return on
}

describe('a settle is priced by what ran, at the reserve’s prices', () => {
  // biome-ignore format: a row a line
  const rows: readonly [what: string, settled: Partial<SettleRequest>, charged: string][] = [
    ['as reserved', { usage: { units: 4 } }, '4'],
    ['with attributes that say what really ran', { usage: { units: 4 }, attributes: { size: 'large' } }, '8'],
    ['with attributes that no line names', { usage: { units: 4 }, attributes: { size: 'odd' } }, '4'],
    ['with other quantities than were estimated', { usage: { tokens: 15 } }, '1.5'],
    ['with a cost instead', { cost: '7.25' }, '7.25'],
    ['with nothing used', { usage: {} }, '0'],
    ['with fractions, rounded up once', { usage: { units: '0.000001', tokens: '0.000001' } }, '0.000002'],
    ['naming the feature and subject it was reserved under', { usage: { units: 1 }, feature: 'task', subject: { user: 'u1' } }, '1'],
  ]
  for (const [what, settled, charged] of rows) {
    for (const published of [false, true]) {
      test(`${what}${published ? ', though prices have changed meanwhile' : ''}`, async () => {
        const on = await held()
        if (published) await on.publish(CREDITS_ONLY, { features: dearer })
        assert.equal((await on.settle('r', settled)).charged, charged)
        await on.agree()
      })
    }
  }
  test('also after its hold has ended', async () => {
    const on = await held()
    await on.publish(CREDITS_ONLY, { features: dearer })
    on.after(HOUR)
    assert.partialDeepStrictEqual(await on.settle('r', { usage: { units: 4 } }), {
      charged: '4',
      state: 'settled',
    })
    await on.agree()
  })
  // biome-ignore format: a row a line
  const others: readonly [what: string, path: string, settled: Partial<SettleRequest>][] = [
    ['another feature', '/feature', { feature: 'job' }],
    ['another user', '/subject', { subject: { user: 'u2' } }],
    ['fewer dimensions', '/subject', { subject: {} }],
    ['more dimensions', '/subject', { subject: { user: 'u1', team: 't1' } }],
  ]
  for (const [what, path, settled] of others) {
    test(`naming ${what} is a conflict`, async () => {
      const on = await held()
      const kept = await on.kept()
      await refused('conflict', path, () => on.settle('r', { usage: { units: 1 }, ...settled }))
      assert.deepEqual(await on.kept(), kept)
    })
  }
  test('a settle that no reserve came before is recorded, at the prices of now', async () => {
    const on = await scene(CREDITS_ONLY)
    await on.grant('g', 100)
    await on.publish(CREDITS_ONLY, { features: dearer })
    await refused('request_unknown', '/request_id', () => on.settle('r', { usage: { units: 4 } }))
    const answer = await on.settle('r', { feature: 'task', usage: { units: 4 } })
    assert.partialDeepStrictEqual(answer, { state: 'recorded', charged: '12', returned: '0' })
  })
})

describe('beyond what was held, a settle walks the waterfall in force', () => {
  test('over new sources, which guards do not hold up', async () => {
    const on = await held()
    await on.publish({
      guards: [
        { name: 'b', budget: 1, per: 'month' },
        { name: 'r', rate: { meter: 'cost', limit: 1, per: '1h' } },
      ],
      waterfall: [{ overage: { limit: 3, per: 'month' } }, ALL_CREDITS],
    })
    const { from, charged, debt } = await on.settle('r', 20)
    assert.equal(charged, '20')
    assert.deepEqual(from, [
      { source: 'grant:g', amount: '17' },
      { source: 'overage', amount: '3' },
    ])
    assert.equal(debt, '0')
    // A budget that came after the reserve counts what was decided under it: the excess.
    assert.partialDeepStrictEqual(await on.reading(), { b: '10', overage: '3', g: '83' })
    await on.agree()
  })
  test('and an allowance is asked for no more than it has', async () => {
    const on = await scene({
      waterfall: [
        {
          allowance: 'i',
          windows: [
            { name: 'a', limit: 12, per: '5h' },
            { name: 'b', limit: 50, per: '7d' },
          ],
        },
        ALL_CREDITS,
      ],
    })
    await on.grant('g', 100)
    await on.reserve('r', 10)
    await on.reserve('s', 1)
    assert.deepEqual((await on.settle('r', 20)).from, [
      { source: 'allowance:i', amount: '11' },
      { source: 'grant:g', amount: '9' },
    ])
    assert.deepEqual(await on.reading(), { a: '11+1', b: '11+1', g: '91' })
    await on.agree()
  })
})

describe('a record charges what has happened', () => {
  const plan: PlanDocument = {
    guards: [
      { name: 'requests', rate: { meter: 'requests', limit: 1, per: '30d', algorithm: 'fixed' } },
      { name: 'cost', rate: { meter: 'cost', limit: 1, per: '30d', algorithm: 'fixed' } },
      { name: 'at-once', concurrency: 1 },
      { name: 'budget', budget: 1, per: 'month' },
    ],
    waterfall: [{ allowance: 'i', windows: [{ name: 'day', limit: 5, per: 'day' }] }, ALL_CREDITS],
  }
  test('guards count it and never refuse it', async () => {
    const on = await scene(plan)
    await on.grant('g', 100)
    for (const id of ['r', 's']) assert.equal((await on.record(id, 8)).charged, '8')
    assert.deepEqual(await on.reading(), { requests: '2', cost: '16', budget: '16', day: '5', g: '89' })
    await on.agree()
  })
  for (const status of ['suspended', 'closed'] as const) {
    test(`also in an account that is ${status}, like settle and release`, async () => {
      const on = await scene(CREDITS_ONLY)
      await on.grant('g', 100)
      for (const id of ['r', 's']) await on.reserve(id, 10)
      await on.engine.patchAccount('a', { status })
      assert.equal((await on.reserve('t', 1)).reason, `account_${status}`)
      assert.equal((await on.record('u', 5)).charged, '5')
      assert.equal((await on.settle('r', 5)).charged, '5')
      assert.equal((await on.release('s')).returned, '10')
      assert.equal((await on.refund('u', 'u')).refunded, '5')
    })
  }
  test('with a past instant, at the price, windows and grants of now', async () => {
    const on = await scene(plan)
    await on.grant('ended', 100, { expires_at: START + 2 * DAY })
    on.after(3 * DAY)
    await on.grant('g', 100)
    await on.publish(plan, { features: dearer })
    const { from } = await on.record('r', { feature: 'task', usage: { units: 4 }, at: START + DAY })
    assert.deepEqual(from, [
      { source: 'allowance:i', amount: '5' },
      { source: 'grant:g', amount: '7' },
    ])
    assert.partialDeepStrictEqual(await on.reading(), { day: '5', budget: '12', cost: '12' })
    const day = (n: number) =>
      on.engine.usage('a', { from: START + n * DAY - HOUR, to: START + n * DAY + HOUR })
    assert.partialDeepStrictEqual(await day(1), [{ requests: 1, charged: '12' }])
    assert.deepEqual(
      (await day(3)).filter(({ requests }) => requests > 0),
      [],
      'reports count it where it happened',
    )
  })
  const horizonMs = 35 * DAY
  // biome-ignore format: a row a line
  const instants: readonly [what: string, at: number, code: string | undefined][] = [
    ['now', START, undefined],
    ['as old as ids are kept', START - horizonMs, undefined],
    ['a millisecond older', START - horizonMs - 1, 'too_old'],
    ['at the beginning of time', 0, 'too_old'],
    ['within what clocks may differ', START + MINUTE, undefined],
    ['in the future', START + MINUTE + 1, 'invalid'],
  ]
  for (const [what, at, code] of instants) {
    test(`${what}: ${code ?? 'is taken'}`, async () => {
      const on = await scene(CREDITS_ONLY)
      await on.reserve('s', 0)
      const kept = await on.kept()
      const calls = [
        ['/at', () => on.record('r', { cost: 0, at })],
        ['/started_at', () => on.settle('s', { cost: 0, started_at: at })],
      ] as const
      for (const [path, call] of calls) {
        if (code === undefined) await call()
        else {
          await refused(code, path, call)
          assert.deepEqual(await on.kept(), kept)
        }
      }
    })
  }
  test('the horizon can be chosen', async () => {
    const on = await scene(CREDITS_ONLY, { horizonMs: 40 * DAY })
    await on.record('r', { cost: 0, at: START - 40 * DAY })
    await refused('too_old', '/at', () => on.record('s', { cost: 0, at: START - 40 * DAY - 1 }))
  })
  test('the repeat of an instant that has grown too old is still answered', async () => {
    const on = await scene(CREDITS_ONLY)
    const first = await on.record('r', { cost: 0, at: START })
    on.after(36 * DAY)
    assert.deepEqual(await on.record('r', { cost: 0, at: START }), { ...first, replayed: true })
  })
})

describe('a quantity without a price is recorded, and marked', () => {
  // biome-ignore format: a row a line
  const rows: readonly [what: string, used: Partial<RecordRequest>, charged: string, unpriced: readonly string[] | undefined][] = [
    ['one of several', { feature: 'task', usage: { units: 2, watts: 5 } }, '2', ['watts']],
    ['all of them', { feature: 'task', usage: { watts: 5, hours: 1 } }, '0', ['hours', 'watts']],
    ['in a feature without prices', { feature: 'job', usage: { units: 2 } }, '0', ['units']],
    ['none', { feature: 'task', usage: { units: 2 } }, '2', undefined],
    ['none, at no cost', { feature: 'task', usage: { units: 0 } }, '0', undefined],
  ]
  for (const [what, used, charged, unpriced] of rows) {
    test(what, async () => {
      const on = await scene(CREDITS_ONLY)
      await on.grant('g', 100)
      const answer = await on.record('r', used)
      assert.equal(answer.charged, charged)
      assert.deepEqual(answer.unpriced && [...answer.unpriced].sort(), unpriced)
      const [usage] = await on.told('usage')
      assert.ok(usage?.kind === 'usage')
      assert.deepEqual(Object.keys(usage.quantities).sort(), Object.keys(used.usage ?? {}).sort())
      await on.agree()
    })
  }
  test('every use leaves a usage entry and a charge, also at no cost', async () => {
    const on = await scene(CREDITS_ONLY)
    await on.record('r', 0)
    await on.reserve('s', 0)
    await on.settle('s', 0)
    assert.equal((await on.told('usage')).length, 2)
    assert.deepEqual(
      (await on.told('charge')).map((entry) => entry.kind === 'charge' && [entry.cost, entry.cover]),
      [
        [0, []],
        [0, []],
      ],
    )
    await on.agree()
  })
})

describe('an estimate is needed to decide', () => {
  // biome-ignore format: a row a line
  const rows: readonly [what: string, given: object, code: string | undefined, path?: string][] = [
    ['neither estimate nor cost', { feature: 'task' }, 'estimate_missing'],
    ['a default of the feature', { feature: 'preset' }, undefined],
    ['an estimate where nothing has a price', { feature: 'job', estimate: { units: 1 } }, 'price_missing'],
    ['both', { feature: 'task', estimate: { units: 1 }, cost: 1 }, 'invalid', '/cost'],
    ['both minimums', { feature: 'task', estimate: { units: 1 }, min: { units: 1 }, min_cost: 1 }, 'invalid', '/min'],
  ]
  const features = {
    ...FEATURES,
    preset: { rate_card: [{ per_unit: { units: 1 } }], default_estimate: { units: 4 } },
  }
  for (const [what, given, code, path] of rows) {
    test(`${what}: ${code ?? 'is taken'}`, async () => {
      const on = await scene(CREDITS_ONLY, { policy: { features } })
      await on.grant('g', 10)
      if (code === undefined) assert.equal((await on.reserve('r', given)).cost, '4')
      else await refused(code, path, () => on.reserve('r', given))
    })
  }
  test('what a line does not price is told with the line as a story counts it, from 1', async () => {
    const features = { task: { rate_card: [{ per_unit: { units: 1 } }] } }
    const on = await scene(CREDITS_ONLY, { policy: { features } })
    const error = await refused('price_missing', '/estimate/pages', () =>
      on.reserve('r', { feature: 'task', estimate: { pages: 1 } }),
    )
    assert.match(error.message, /line 1 of the rate card of task/)
  })
  test('what a line does not price is free to a caller who says so, in part and in all; attributes no line fits are not', async () => {
    const features = {
      task: { rate_card: [{ when: { model: 'm' }, per_unit: { units: 1 } }] },
    }
    const on = await scene(CREDITS_ONLY, { policy: { features } })
    await on.grant('g', 10)
    const free = { actor: 'gateway', unpriced: 'free' } as const
    const ask = (request_id: string, estimate: object, model = 'm') => ({
      ...{ request_id, account: 'a', feature: 'task', attributes: { model } },
      estimate: estimate as Record<string, number>,
    })
    const all = await on.engine.reserve(ask('r', { units: 4, pages: 9 }), free)
    assert.deepEqual([all.outcome, all.granted], ['allow', '4'])
    const more = await on.engine.extend(
      { request_id: 'r', account: 'a', step: 1, estimate: { units: 5, pages: 99, sheets: 1 } },
      free,
    )
    assert.deepEqual([more.outcome, more.granted], ['allow', '5'])
    const part = await on.engine.reserve(
      { ...ask('s', { units: 40, pages: 9 }), min: { units: 1, pages: 9 } },
      free,
    )
    assert.deepEqual([part.outcome, part.granted_estimate], ['partial', { units: '5', pages: '9' }])
    assert.equal((await on.engine.reserve(ask('t', { pages: 9 }), free)).granted, '0')
    await refused('price_missing', '/attributes', () =>
      on.engine.reserve(ask('u', { units: 1 }, 'other'), free),
    )
    await on.agree()
  })
  test('a dimension that a limit counts by is needed, and named', async () => {
    const on = await scene({
      waterfall: [
        { allowance: 'i', by: 'user', windows: [{ name: 'd', limit: 1, per: 'day' }], features: ['task'] },
        ALL_CREDITS,
      ],
      guards: [{ name: 'g', concurrency: 1, by: 'team', features: ['job'] }],
    })
    await on.grant('g', 10)
    await refused('subject_missing', '/subject/team', () => on.reserve('r', 1))
    await refused('subject_missing', '/subject/user', () =>
      on.reserve('r', { feature: 'task', estimate: { units: 1 } }),
    )
    assert.equal((await on.reserve('r', { feature: 'other', cost: 1 })).outcome, 'allow')
  })
})
