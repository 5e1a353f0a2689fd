import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import {
  ALL_CREDITS,
  CREDITS_ONLY,
  cu,
  DAY,
  FEATURES,
  HOUR,
  MICRO,
  type Scene,
  START,
  scene,
} from '../../test/scene.ts'
import type { GuardDocument, PlanDocument, SourceDocument } from '../policy/schema.ts'
import type { GrantRequest, ReserveRequest } from '../wire.ts'

type Terms = Partial<GrantRequest>

describe('grants burn by priority, then the earliest end, then their kind in the step’s order, then start, then id', () => {
  const late = { expires_at: START + 9 * DAY }
  const soon = { expires_at: START + DAY }
  const step: SourceDocument = { credits: ['promo', 'free', 'purchased'] }
  // biome-ignore format: a row a line
  const rows: readonly [what: string, order: readonly Terms[]][] = [
    ['a lower priority is first, whatever else', [{ id: 'z', priority: 1, kind: 'purchased' }, { id: 'y', ...soon, kind: 'promo' }, { id: 'x', priority: 101, ...soon, kind: 'promo' }]],
    ['the default priority is 100', [{ id: 'z', priority: 99 }, { id: 'y', priority: 100, ...soon }, { id: 'x', ...late }, { id: 'a', priority: 101 }]],
    ['the earliest end is first, none is last', [{ id: 'z', ...soon, kind: 'purchased' }, { id: 'y', ...late, kind: 'promo' }, { id: 'x', kind: 'promo' }]],
    ['kinds in the step’s own order', [{ id: 'z', kind: 'promo' }, { id: 'y', kind: 'free' }, { id: 'x', kind: 'purchased' }]],
    ['the earliest start is first', [{ id: 'z', starts_at: START - DAY }, { id: 'y', starts_at: START - HOUR }, { id: 'x' }]],
    ['the id decides at last, by its characters', [{ id: 'B' }, { id: 'a' }, { id: 'a1' }, { id: 'b' }]],
    ['zero is a priority', [{ id: 'z', priority: 0 }, { id: 'a', priority: 1, ...soon }]],
  ]
  for (const [what, order] of rows) {
    for (const reversed of [false, true]) {
      test(`${what}${reversed ? ', in whatever order they came' : ''}`, async () => {
        const on = await scene({ waterfall: [step] })
        for (const terms of reversed ? [...order].reverse() : order) await on.grant(terms.id ?? '', 1, terms)
        const { from } = await on.reserve('r', order.length)
        assert.deepEqual(
          from.map(({ source }) => source),
          order.map(({ id }) => `grant:${id}`),
        )
      })
    }
  }

  test('steps come before order: a later step burns only when an earlier one is empty', async () => {
    const on = await scene({ waterfall: [{ credits: ['free'] }, { credits: ['promo'] }] })
    await on.grant('p', 5, { kind: 'promo', priority: 0, ...soon })
    await on.grant('f', 3, { kind: 'free', priority: 500 })
    assert.deepEqual((await on.reserve('r', 4)).from, [
      { source: 'grant:f', amount: '3' },
      { source: 'grant:p', amount: '1' },
    ])
  })
  test('a kind that no step burns pays for nothing', async () => {
    const on = await scene({ waterfall: [{ credits: ['free'] }] })
    await on.grant('p', 5)
    assert.equal((await on.reserve('r', 1)).reason, 'credits_short')
  })
  test('what is held is not there for another', async () => {
    const on = await scene(CREDITS_ONLY)
    await on.grant('g', 5)
    await on.reserve('r', 3)
    assert.partialDeepStrictEqual(await on.reserve('s', 3), {
      outcome: 'deny',
      unblock: { at_most: '2', credits: '1' },
    })
  })
  for (const [what, terms, asked, pays] of scopes()) {
    test(`a grant for ${what} ${pays ? 'pays' : 'does not pay'} ${JSON.stringify(asked)}`, async () => {
      const on = await scene(CREDITS_ONLY, { policy: { features: { ...FEATURES, 'task.big': {} } } })
      await on.grant('g', 5, terms)
      const { reason } = await on.reserve('r', { cost: 5, ...asked })
      assert.equal(reason, pays ? 'granted' : 'credits_short')
    })
  }
})

function scopes(): readonly (readonly [string, Terms, Partial<ReserveRequest>, boolean])[] {
  // biome-ignore format: a row a line
  return [
    ['a feature', { features: ['job'] }, { feature: 'job' }, true],
    ['a feature', { features: ['job'] }, { feature: 'other' }, false],
    ['a pattern', { features: ['task.*'] }, { feature: 'task.big' }, true],
    ['a pattern', { features: ['task.*'] }, { feature: 'task' }, false],
    ['every feature', { features: ['*'] }, { feature: 'job' }, true],
    ['a user', { subjects: { user: 'u1' } }, { subject: { user: 'u1' } }, true],
    ['a user', { subjects: { user: 'u1' } }, { subject: { user: 'u2' } }, false],
    ['a user', { subjects: { user: 'u1' } }, {}, false],
    ['several users', { subjects: { user: ['u1', 'u2'] } }, { subject: { user: 'u2' } }, true],
    ['a user in a team', { subjects: { user: 'u1', team: 't1' } }, { subject: { user: 'u1', team: 't1' } }, true],
    ['a user in a team', { subjects: { user: 'u1', team: 't1' } }, { subject: { user: 'u1', team: 't2' } }, false],
    ['now on', { starts_at: START }, {}, true],
    ['a later start', { starts_at: START + 1 }, {}, false],
    ['one millisecond', { expires_at: START + 1 }, {}, true],
  ]
}

describe('a partial grant is what fits, where that is welcome', () => {
  const features = {
    ...FEATURES,
    video: { rate_card: [{ per_request: 2, per_unit: { seconds: 1 } }] },
    mixed: { rate_card: [{ per_unit: { units: 1, tokens: '0.1' } }] },
  }
  const rate = (meter: string, limit: number): GuardDocument => ({
    name: 'rate',
    rate: { meter, limit, per: '1h' },
  })
  const budget: GuardDocument = { name: 'budget', budget: 6, per: 'month' }
  // biome-ignore format: a row a line
  const rows: readonly [what: string, credits: number, guards: readonly GuardDocument[], asked: Partial<ReserveRequest>, granted: string | undefined, quantities?: Record<string, string>][] = [
    ['all there is, at least the minimum', 4, [], { cost: 10, min_cost: 4 }, '4'],
    ['nothing below the minimum', 4, [], { cost: 10, min_cost: '4.000001' }, undefined],
    ['nothing without a minimum', 4, [], { cost: 10 }, undefined],
    ['nothing where nothing is left', 0, [], { cost: 10, min_cost: 0 }, undefined],
    ['the last µCU', MICRO, [], { cost: 10, min_cost: '0.000001' }, '0.000001'],
    ['whole quantities stay whole', 4.5, [], { feature: 'task', estimate: { units: 10 }, min: { units: 2 } }, '4', { units: '4' }],
    ['to the last that fits', 4.55, [], { feature: 'task', estimate: { tokens: 100 }, min: { tokens: 1 } }, '4.5', { tokens: '45' }],
    ['a minimum in quantities that does not fit', 4.5, [], { feature: 'task', estimate: { units: 10 }, min: { units: 5 } }, undefined],
    ['a minimum in quantities, just', 5, [], { feature: 'task', estimate: { units: 10 }, min: { units: 5 } }, '5', { units: '5' }],
    ['a minimum in cost, of an estimate', 4.5, [], { feature: 'task', estimate: { units: 10 }, min_cost: 4 }, '4', { units: '4' }],
    ['a minimum in cost that whole quantities miss', 4.5, [], { feature: 'task', estimate: { units: 10 }, min_cost: '4.2' }, undefined],
    ['quantities side by side, along the estimate', 10, [], { feature: 'mixed', estimate: { units: 10, tokens: 100 }, min: { units: 1 } }, '10', { units: '5', tokens: '50' }],
    ['what the minimum names in full stays whole', 15, [], { feature: 'mixed', estimate: { units: 10, tokens: 100 }, min: { units: 10 } }, '15', { units: '10', tokens: '50' }],
    ['not even what the minimum names', 9, [], { feature: 'mixed', estimate: { units: 10, tokens: 100 }, min: { units: 10 } }, undefined],
    ['a fixed amount first, then what fits', 5, [], { feature: 'video', estimate: { seconds: 10 }, min: { seconds: 1 } }, '5', { seconds: '3' }],
    ['not even the fixed amount', '1.5' as never, [], { feature: 'video', estimate: { seconds: 10 }, min: { seconds: 1 } }, undefined],
    ['at the price of its attributes', 5, [], { feature: 'task', estimate: { units: 10 }, attributes: { size: 'large' }, min: { units: 1 } }, '4', { units: '2' }],
    ['a rate over cost caps it', 100, [rate('cost', 6)], { cost: 10, min_cost: 1 }, '6'],
    ['a rate over a quantity caps it', 100, [rate('units', 7)], { feature: 'task', estimate: { units: 10 }, min: { units: 1 } }, '7', { units: '7' }],
    ['a budget caps it', 100, [budget], { cost: 10, min_cost: 1 }, '6'],
    ['the least of them caps it', 3, [budget, rate('cost', 5)], { cost: 10, min_cost: 1 }, '3'],
    ['a cap below the minimum', 100, [budget], { cost: 10, min_cost: 7 }, undefined],
    ['all of it, where all fits', 10, [], { cost: 10, min_cost: 1 }, '10'],
  ]
  for (const [what, credits, guards, asked, granted, quantities] of rows) {
    test(what, async () => {
      const on = await scene({ guards: [...guards], waterfall: [ALL_CREDITS] }, { policy: { features } })
      if (Number(credits) > 0) await on.grant('g', Number(credits))
      const answer = await on.reserve('r', asked)
      const whole = granted === answer.cost
      assert.equal(
        answer.outcome,
        granted === undefined ? 'deny' : whole ? 'allow' : 'partial',
        answer.reason,
      )
      assert.equal(answer.granted, granted ?? '0')
      assert.deepEqual(answer.granted_estimate, quantities)
      assert.deepEqual(answer.from, granted === undefined ? [] : [{ source: 'grant:g', amount: granted }])
      await on.agree()
      if (granted === undefined) return
      const held = await on.view()
      assert.equal(held.credits.held, granted)
      for (const limit of held.limits)
        assert.equal(
          Number(limit.used) + Number(limit.held),
          quantities?.[limit.unit] === undefined ? Number(granted) : Number(quantities[limit.unit]),
        )
    })
  }

  test('a fraction is scaled to the millionth, and costs no more than there is', async () => {
    const on = await scene(CREDITS_ONLY, { policy: { features } })
    await on.grant('g', 4)
    const answer = await on.reserve('r', { feature: 'task', estimate: { units: '8.5' }, min: { units: 1 } })
    assert.equal(answer.granted, answer.granted_estimate?.units)
    assert.ok(Number(answer.granted) <= 4 && Number(answer.granted) >= 3.99999, answer.granted)
  })
  // biome-ignore format: a row a line
  const counts: readonly [what: string, guard: GuardDocument, before: (on: Scene) => Promise<unknown>][] = [
    ['requests', { name: 'often', rate: { meter: 'requests', limit: 1, per: '1h' } }, (on) => on.record('n', 0)],
    ['what runs at once', { name: 'one', concurrency: 1 }, (on) => on.reserve('n', 0)],
  ]
  for (const [what, guard, before] of counts) {
    test(`a guard over ${what} gives no part`, async () => {
      const on = await scene({ ...CREDITS_ONLY, guards: [guard] })
      await on.grant('g', 100)
      await before(on)
      assert.equal((await on.reserve('r', { cost: 10, min_cost: 1 })).outcome, 'wait')
    })
  }
})

describe('a waterfall is split in its order, source by source', () => {
  const plan: PlanDocument = {
    waterfall: [
      {
        allowance: 'small',
        windows: [
          { name: '5h', limit: 3, per: '5h' },
          { name: '7d', limit: 100, per: '7d' },
        ],
      },
      { credits: ['free'] },
      { allowance: 'big', by: 'user', windows: [{ name: 'day', limit: 4, per: 'day' }], features: ['job'] },
      { credits: ['purchased'] },
      { overage: { limit: 5, per: 'month' } },
    ],
  }
  // biome-ignore format: a row a line
  const rows: readonly [cost: number, feature: string, from: string][] = [
    [1, 'job', 'small 1'],
    [3, 'job', 'small 3'],
    [5, 'job', 'small 3, f 2'],
    [8, 'job', 'small 3, f 2, big 3'],
    [10, 'job', 'small 3, f 2, big 4, p 1'],
    [15, 'job', 'small 3, f 2, big 4, p 2, overage 4'],
    [16, 'job', 'small 3, f 2, big 4, p 2, overage 5'],
    [8, 'other', 'small 3, f 2, p 2, overage 1'],
    [0, 'job', ''],
  ]
  for (const [cost, feature, from] of rows) {
    test(`${cost} of ${feature}`, async () => {
      const on = await scene(plan)
      await on.grant('f', 2, { kind: 'free' })
      await on.grant('p', 2)
      const answer = await on.reserve('r', { cost, feature, subject: { user: 'u1' } })
      const told = answer.from
        .map(({ source, amount }) => `${source.replace(/^\w+:/, '')} ${amount}`)
        .join(', ')
      assert.equal(told, from)
      assert.equal(answer.granted, cu(cost))
      await on.agree()
    })
  }
})
