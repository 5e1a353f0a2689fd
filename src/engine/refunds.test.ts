import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { CREDITS_ONLY, cu, DAY, HOUR, MINUTE, refused, type Scene, START, scene } from '../../test/scene.ts'
import type { PlanDocument } from '../policy/schema.ts'
import type { RefundRequest } from '../wire.ts'

const PLAN: PlanDocument = {
  guards: [{ name: 'budget', budget: 100, per: 'month' }],
  waterfall: [
    {
      allowance: 'i',
      windows: [
        { name: '5h', limit: 4, per: '5h' },
        { name: '7d', limit: 40, per: '7d' },
      ],
    },
    { credits: ['promo'] },
    { credits: ['purchased'] },
    { overage: { limit: 1, per: 'month' } },
  ],
  on_shortfall: { absorb: 2, per: 'month' },
}
/** Used 14: 4 of the allowance, 3 promo, 2 bought, 1 of overage, 2 absorbed, 2 owed. */
async function used(cost = 14): Promise<Scene> {
  const on = await scene(PLAN)
  await on.grant('promo', 3, { kind: 'promo', expires_at: START + DAY })
  await on.grant('bought', 2)
  await on.record('r', { feature: 'task', usage: { units: cost } })
  return on
}

describe('a refund restores the last source first', () => {
  const all = 'debt 2, absorbed 2, overage 1, bought 2, promo 3, i 4'
  // biome-ignore format: a row a line
  const rows: readonly [what: string, asked: Partial<RefundRequest>, to: string, charged: string][] = [
    ['a part of the last', { amount: 1 }, 'debt 1', '13'],
    ['several', { amount: 5 }, 'debt 2, absorbed 2, overage 1', '9'],
    ['into grants', { amount: 8 }, 'debt 2, absorbed 2, overage 1, bought 2, promo 1', '6'],
    ['all, by amount', { amount: 14 }, all, '0'],
    ['all, where nothing is said', {}, all, '0'],
    ['down to what was truly used', { usage: { units: 9 } }, 'debt 2, absorbed 2, overage 1', '9'],
    ['down to nothing used', { usage: {} }, all, '0'],
    ['nothing, where all was used', { usage: { units: 14 } }, '', '14'],
    ['nothing', { amount: 0 }, '', '14'],
  ]
  for (const [what, asked, to, charged] of rows) {
    test(what, async () => {
      const on = await used()
      assert.deepEqual(await on.reading(), { '5h': '4', '7d': '4', overage: '1', budget: '14', debt: '2' })
      const answer = await on.refund('r', 'one', asked)
      assert.equal(
        answer.to.map(({ source, amount }) => `${source.replace(/^\w+:/, '')} ${amount}`).join(', '),
        to,
      )
      assert.deepEqual(
        { charged: answer.charged, refunded: answer.refunded },
        { charged, refunded: cu(14 - Number(charged)) },
      )
      assert.equal((await on.reading()).budget ?? '0', charged)
      await on.agree()
      const rest = await on.refund('r', 'rest')
      assert.equal(rest.refunded, charged)
      assert.deepEqual(await on.reading(), { bought: '2', promo: '3' }, 'as if it had never been')
      assert.deepEqual((await on.refund('r', 'more')).refunded, '0')
      await on.agree()
    })
  }
  test('in several steps, each of what stands', async () => {
    const on = await used()
    const steps = [1, 2, 3, 4, 4]
    for (const [n, amount] of steps.entries()) {
      const { to } = await on.refund('r', `${n}`, { amount })
      assert.equal(
        to.reduce((sum, one) => sum + Number(one.amount), 0),
        amount,
      )
      await on.agree()
    }
    assert.deepEqual(await on.reading(), { bought: '2', promo: '3' })
  })
})

describe('a refund never gives more than was charged', () => {
  // biome-ignore format: a row a line
  const rows: readonly [what: string, path: string, asked: Partial<RefundRequest>][] = [
    ['an amount above it', '/amount', { amount: '14.000001' }],
    ['usage above it', '/usage', { usage: { units: 15 } }],
    ['both at once', '/usage', { amount: 1, usage: { units: 1 } }],
    ['a negative amount', '/amount', { amount: -1 }],
  ]
  for (const [what, path, asked] of rows) {
    test(what, async () => {
      const on = await used()
      const kept = await on.kept()
      await refused('invalid', path, () => on.refund('r', 'one', asked))
      assert.deepEqual(await on.kept(), kept)
    })
  }
  test('nor after others have given back', async () => {
    const on = await used()
    await on.refund('r', 'one', { amount: 10 })
    const { detail } = await refused('invalid', '/amount', () =>
      on.refund('r', 'two', { amount: '4.000001' }),
    )
    assert.match(detail.remedy ?? '', /at most 4 CU/)
    await on.refund('r', 'two', { amount: 4 })
  })
})

describe('a refund has an id of its own', () => {
  test('a repeat is answered again, and gives nothing more', async () => {
    const on = await used()
    const first = await on.refund('r', 'one', { amount: 5 })
    await on.refund('r', 'two', { amount: 2 })
    const kept = await on.kept()
    assert.deepEqual(await on.refund('r', 'one', { amount: 5 }), { ...first, replayed: true })
    assert.deepEqual(await on.refund('r', 'one', { amount: 5, reason: 'said otherwise' }), {
      ...first,
      replayed: true,
    })
    assert.deepEqual(await on.kept(), kept)
  })
  test('another meaning is a conflict that carries the first answer', async () => {
    const on = await used()
    const first = await on.refund('r', 'one', { amount: 5 })
    for (const other of [{ amount: 6 }, {}, { usage: { units: 9 } }]) {
      const { detail } = await refused('conflict', undefined, () => on.refund('r', 'one', other))
      assert.deepEqual(detail.first, { ...first, replayed: true })
    }
  })
  test('the same id on another request is another refund', async () => {
    const on = await used()
    await on.record('s', 0)
    await on.refund('r', 'one', { amount: 5 })
    assert.equal((await on.refund('s', 'one')).refunded, '0')
  })
})

describe('what can be refunded', () => {
  // biome-ignore format: a row a line
  const rows: readonly [what: string, before: (on: Scene) => Promise<unknown>, code: string | undefined][] = [
    ['a recorded request', (on) => on.record('r', 5), undefined],
    ['a settled request', async (on) => { await on.reserve('r', 5); await on.settle('r', 5) }, undefined],
    ['one that its end has charged', async (on) => { await on.reserve('r', 5); on.after(10 * MINUTE) }, undefined],
    ['an open one', (on) => on.reserve('r', 5), 'invalid'],
    ['a released one', async (on) => { await on.reserve('r', 5); await on.release('r') }, 'invalid'],
    ['one that nobody knows', async () => {}, 'request_unknown'],
  ]
  for (const [what, before, code] of rows) {
    test(`${what}: ${code ?? 'is refunded'}`, async () => {
      const on = await scene({ ...CREDITS_ONLY, hold: { on_expiry: 'charge' } })
      await on.grant('g', 10)
      await before(on)
      if (code === undefined) assert.equal((await on.refund('r', 'one')).refunded, '5')
      else await refused(code, '/request_id', () => on.refund('r', 'one'))
      await on.agree()
    })
  }
  test('a hold that charged itself, then refunded in part, is settled for the difference to what stood before', async () => {
    const on = await scene({ ...CREDITS_ONLY, hold: { on_expiry: 'charge' } })
    await on.grant('g', 20)
    await on.reserve('r', 10)
    on.after(10 * MINUTE)
    await on.refund('r', 'one', { amount: 3 })
    assert.equal((await on.settle('r', 12)).state, 'settled')
    assert.deepEqual(
      await on.reading(),
      { g: '11' },
      'the 12 that were used, less the 3 that were given back',
    )
    await on.agree()
  })
})

describe('where what comes back goes', () => {
  async function spent(terms: object): Promise<Scene> {
    const on = await scene(CREDITS_ONLY)
    await on.grant('g', 10, terms)
    await on.record('r', 10)
    assert.deepEqual((await on.view()).credits.grants, [], 'used up, it has left the account')
    return on
  }
  test('into a grant that was used up, which is back', async () => {
    const on = await spent({})
    await on.refund('r', 'one', { amount: 4 })
    assert.partialDeepStrictEqual((await on.view()).credits.grants, [
      { id: 'g', remaining: '4', status: 'active' },
    ])
    assert.equal((await on.reserve('s', 4)).outcome, 'allow')
    await on.agree()
  })
  for (const how of ['expired', 'revoked'] as const) {
    test(`into a grant that was used up and has ${how}: it is ${how} at once`, async () => {
      const on = await spent({ expires_at: START + DAY })
      if (how === 'expired') on.after(DAY)
      else await on.engine.revokeGrant('a', 'g')
      assert.deepEqual((await on.refund('r', 'one', { amount: 4 })).to, [{ source: 'grant:g', amount: '4' }])
      assert.deepEqual((await on.view()).credits.grants, [])
      const moved = (await on.told('balance'))
        .slice(-2)
        .map((entry) => entry.kind === 'balance' && [entry.from, entry.to, entry.amount])
      assert.deepEqual(moved, [
        ['charged', 'grant:g', 4_000_000],
        ['grant:g', how, 4_000_000],
      ])
      await on.agree()
    })
  }
  test('into windows that still stand, and into none that have ended', async () => {
    const on = await used(3)
    on.after(6 * HOUR)
    await on.record('s', 2)
    await on.refund('r', 'one')
    assert.partialDeepStrictEqual(await on.reading(), { '5h': '2', '7d': '2' })
    await on.agree()
  })
  test('off a debt, as far as it is owed; what has been repaid comes back as credits of its own', async () => {
    const on = await scene(CREDITS_ONLY)
    await on.record('r', 10)
    await on.grant('g', 7)
    assert.deepEqual(await on.reading(), { debt: '3' })
    await on.refund('r', 'one')
    assert.deepEqual(await on.reading(), { 'refund:r:one': '7' })
    assert.equal((await on.reserve('s', 7)).outcome, 'allow')
    await on.agree()
  })
})
