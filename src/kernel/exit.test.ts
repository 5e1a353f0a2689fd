import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { CREDITS_ONLY, FEATURES, HOUR, refused, scene } from '../../test/scene.ts'
import type { PlanDocument } from '../policy/schema.ts'
import { formatMicros } from '../units.ts'

describe('a settle of a hold that was charged at its end tells what covers the use in all', () => {
  const plan = { ...CREDITS_ONLY, hold: { ttl: '10m', on_expiry: 'charge' } } as const
  // biome-ignore format: a row a line
  const rows: readonly [what: string, refund: string | undefined, cost: number, from: readonly (readonly [string, string])[]][] = [
    ['more than was held', undefined, 9, [['grant:g', '8'], ['debt', '1']]],
    ['as much', undefined, 5, [['grant:g', '5']]],
    ['less', undefined, 2, [['grant:g', '2']]],
    ['nothing', undefined, 0, []],
    ['more, after a refund', '1', 9, [['grant:g', '8']]],
    ['more, after all was refunded', '5', 6, [['grant:g', '1']]],
  ]
  for (const [what, refund, cost, from] of rows) {
    test(`${what}, at first and on repeat`, async () => {
      const on = await scene(plan)
      await on.grant('g', 8)
      await on.reserve('r', 5)
      on.after(HOUR)
      if (refund !== undefined) await on.refund('r', 'f', { amount: refund })
      const first = await on.settle('r', cost)
      assert.deepEqual(
        first.from.map((share) => [share.source, share.amount]),
        from,
      )
      assert.deepEqual(await on.settle('r', cost), { ...first, replayed: true })
      await on.agree()
    })
  }
})

test('refunds whose ids run together make grants of their own', async () => {
  const on = await scene(CREDITS_ONLY)
  await on.record('a', 5)
  await on.record('a:b', 7)
  await on.grant('g', 20)
  await on.refund('a', 'b:c')
  await on.refund('a:b', 'c')
  assert.deepEqual(await on.reading(), { g: '8', 'refund:a:b:c': '5', 'refund:a%3Ab:c': '7' })
  await on.agree()
})

test('a grant that a refund makes is one as any other, however long the ids are', async () => {
  const on = await scene(CREDITS_ONLY)
  const long = 'r'.repeat(128)
  await on.record(long, 5)
  await on.record('r', 3)
  await on.grant('g', 8)
  await on.refund(long, long)
  await on.refund('r', 'f'.repeat(120))
  const made = (await on.view()).credits.grants
  assert.equal(made.length, 2)
  for (const { id } of made) {
    assert.match(id, /^refund:[!-~]{1,121}$/)
    assert.equal((await on.engine.revokeGrant('a', id, {})).status, 'revoked')
  }
  await on.agree()
})

test('a refund down to a usage refuses quantities without a price, and gives nothing back', async () => {
  const on = await scene(CREDITS_ONLY)
  await on.grant('g', 20)
  await on.record('r', { feature: 'task', usage: { units: 10, other: 2 } })
  const before = await on.kept()
  for (const usage of [{ unitz: 9 }, { units: 9, other: 2 }])
    await refused('price_missing', `/usage/${Object.keys(usage).at(-1)}`, () =>
      on.refund('r', 'f', { usage }),
    )
  assert.deepEqual(await on.kept(), before)
  assert.equal((await on.refund('r', 'f', { usage: { units: 9 } })).refunded, '1')
})

describe('an account that counts as much as can be counted lives on when a hold ends', () => {
  const OTHERS = {
    policy: { features: { ...FEATURES, other: { rate_card: [{ per_unit: { units: 1, tokens: 0 } }] } } },
  }
  const MOST = '9007199254.740991'
  const rates = [
    { name: 'cost', rate: { meter: 'cost', limit: 10, per: '300d' } },
    { name: 'tokens', rate: { meter: 'tokens', limit: 10, per: '300d', algorithm: 'fixed' } },
  ] as const
  const budget = [{ name: 'budget', budget: 10, per: '300d' }] as const
  const allowance = { allowance: 'all', windows: [{ name: 'hour', limit: MOST, per: '1h' }] } as const
  type On = Awaited<ReturnType<typeof scene>>
  const all = (on: On, id: string) => on.record(id, { cost: MOST })
  const tokens = (on: On, id: string) => on.record(id, { feature: 'other', usage: { tokens: MOST } })
  // biome-ignore format: a row a line
  const rows: readonly [what: string, plan: Partial<PlanDocument>, fill: (on: On) => Promise<unknown>, charged: string][] = [
    ['in its books', {}, (on) => all(on, 'x'), '0'],
    ['in its books, but for a little', {}, (on) => on.record('x', { cost: '9007199254' }), '0.740991'],
    ['in a budget, of what allowances paid', { waterfall: [allowance], guards: budget }, (on) => all(on, 'x'), '0'],
    ['in a rate over cost', { guards: [rates[0]] }, async (on) => { await all(on, 'x'); await on.refund('x', 'y') }, '7'],
    ['in a rate over a quantity', { guards: [rates[1]] }, (on) => tokens(on, 'x'), '7'],
  ]
  for (const [what, plan, fill, charged] of rows) {
    test(what, async () => {
      const on = await scene({ ...CREDITS_ONLY, ...plan, hold: { ttl: '2h', on_expiry: 'charge' } }, OTHERS)
      await on.grant('g', 1)
      await on.reserve('r', { feature: 'other', estimate: { units: '0.000001' } })
      await on.extend('r', 1, { used: { units: 7, tokens: 7 } })
      await fill(on)
      on.after(3 * HOUR)
      assert.equal((await on.view()).open_holds, 0)
      await on.record('after', 0)
      const uses = await on.told('usage')
      assert.ok(uses.some((entry) => entry.request === 'r'))
      const ends = (await on.told('charge')).filter((entry) => entry.request === 'r')
      assert.deepEqual(
        ends.map((entry) => formatMicros('cost' in entry ? (entry.cost as number) : -1)),
        [charged],
      )
      await on.agree()
    })
  }
})
