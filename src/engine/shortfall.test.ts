import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { ALL_CREDITS, CREDITS_ONLY, DAY, HOUR, refused, type Scene, START, scene } from '../../test/scene.ts'
import type { PlanDocument } from '../policy/schema.ts'

const absorbing: PlanDocument = { ...CREDITS_ONLY, on_shortfall: { absorb: 5, per: 'month' } }

describe('what nothing covers is absorbed up to the plan’s bound, and owed beyond it', () => {
  // biome-ignore format: a row a line
  const rows: readonly [what: string, plan: PlanDocument, credits: number, costs: readonly number[], absorbed: string, debt: string][] = [
    ['within the bound', absorbing, 10, [14], '4', '0'],
    ['at the bound', absorbing, 10, [15], '5', '0'],
    ['beyond it', absorbing, 10, [18], '5', '3'],
    ['the bound holds over the whole window', absorbing, 10, [13, 4], '2', '2'],
    ['and once it is used, all is owed', absorbing, 0, [5, 1], '0', '1'],
    ['without a bound all is owed', CREDITS_ONLY, 10, [12], '0', '2'],
    ['nothing is absorbed where all is covered', absorbing, 10, [10], '0', '0'],
  ]
  for (const [what, plan, credits, costs, absorbed, debt] of rows) {
    for (const held of [false, true]) {
      test(`${what}${held ? ', by a settle of more than was held' : ''}`, async () => {
        const on = await scene(plan)
        if (credits > 0) await on.grant('g', credits)
        let last: { absorbed: string; debt: string } | undefined
        for (const [n, cost] of costs.entries()) {
          if (held) await on.reserve(`r${n}`, n === 0 && credits > 0 ? 1 : 0)
          last = held ? await on.settle(`r${n}`, cost) : await on.record(`r${n}`, cost)
        }
        assert.partialDeepStrictEqual(last, { absorbed, debt })
        const view = await on.view()
        assert.equal(view.credits.available, '0')
        for (const { remaining } of view.credits.grants) assert.ok(Number(remaining) >= 0)
        await on.agree()
      })
    }
  }
  test('the bound is new in its next window', async () => {
    const on = await scene(absorbing)
    await on.record('r', 5)
    on.clock.now = Date.UTC(2026, 1, 1)
    assert.partialDeepStrictEqual(await on.record('s', 6), { absorbed: '5', debt: '1' })
    await on.agree()
  })
})

describe('an account in debt', () => {
  async function owing(plan: PlanDocument = CREDITS_ONLY): Promise<Scene> {
    const on = await scene(plan)
    await on.record('d', 20)
    return on
  }
  const both: PlanDocument = {
    waterfall: [
      { allowance: 'i', windows: [{ name: 'day', limit: 8, per: 'day' }] },
      ALL_CREDITS,
      { overage: { limit: 4, per: '2h' } },
    ],
  }
  test('gets only its allowances', async () => {
    const on = await owing(both)
    assert.equal((await on.view()).credits.debt, '8')
    await on.grant('bound', 10, { features: ['job'] })
    on.after(DAY)
    assert.equal((await on.reserve('r', 9)).reason, 'in_debt')
    assert.deepEqual((await on.reserve('r', 8)).from, [{ source: 'allowance:i', amount: '8' }])
    assert.partialDeepStrictEqual(await on.reserve('s', { cost: 2, min_cost: 1 }), {
      reason: 'in_debt',
      granted: '0',
    })
  })
  test('owes more where more has happened, credits and overage left alone', async () => {
    const on = await owing(both)
    await on.grant('bound', 10, { features: ['job'] })
    assert.partialDeepStrictEqual(await on.record('r', 3), { debt: '3' })
    assert.partialDeepStrictEqual(await on.reading(), { bound: '10', debt: '11' })
  })
  test('repays with its next grant that has no scope, first of all', async () => {
    const on = await owing()
    assert.partialDeepStrictEqual(await on.grant('g', 25), { repaid: '20', remaining: '5', amount: '25' })
    assert.deepEqual(await on.reading(), { g: '5' })
    assert.equal((await on.reserve('r', 5)).outcome, 'allow')
    await on.agree()
  })
  test('in parts, grant by grant', async () => {
    const on = await owing()
    for (const [n, debt] of [
      [0, '13'],
      [1, '6'],
      [2, undefined],
    ] as const) {
      await on.grant(`g${n}`, 7)
      assert.equal((await on.reading()).debt, debt)
    }
    assert.deepEqual(await on.reading(), { g2: '1' })
    await on.agree()
  })
  for (const [what, terms] of [
    ['a feature', { features: ['job'] }],
    ['a user', { subjects: { user: 'u1' } }],
  ] as const) {
    test(`repays nothing with a grant for ${what}`, async () => {
      const on = await owing()
      assert.partialDeepStrictEqual(await on.grant('g', 25, terms), { repaid: '0', remaining: '25' })
      assert.equal((await on.view()).credits.debt, '20')
    })
  }
  test('repays with a grant that starts later at its start, also where nobody calls', async () => {
    const on = await owing()
    await on.grant('g', 25, { starts_at: START + HOUR })
    on.after(HOUR - 1)
    assert.equal((await on.view()).credits.debt, '20')
    on.after(5 * HOUR)
    await on.record('r', 0)
    assert.deepEqual(await on.reading(), { g: '5' })
    const repaid = (await on.told('balance')).find(
      (entry) => entry.kind === 'balance' && entry.reason === 'repaid',
    )
    assert.partialDeepStrictEqual(repaid, { at: START + HOUR, recorded_at: START + 6 * HOUR - 1 })
    await on.agree()
  })
  test('repays with the plan’s own grants, as they recur', async () => {
    const on = await owing({ ...CREDITS_ONLY, grants: [{ kind: 'plan', amount: 5, every: 'day' }] })
    assert.deepEqual(await on.reading(), { debt: '15' })
    on.after(3 * DAY)
    assert.deepEqual(await on.reading(), {})
    on.after(DAY)
    assert.equal((await on.view()).credits.available, '5')
    await on.agree()
  })
})

describe('each crossing of a low balance becomes an entry', () => {
  const plan: PlanDocument = { ...CREDITS_ONLY, low_balance: ['20', '10', '0'] }
  const crossed = async (on: Scene) =>
    (await on.told('change'))
      .flatMap((entry) => (entry.kind === 'change' && entry.what === 'low_balance' ? [entry.detail] : []))
      .map(({ threshold, direction }) => `${direction} ${Number(threshold) / 1_000_000}`)
      .join(', ')
  const up = 'above 0, above 10, above 20'
  // biome-ignore format: a row a line
  const rows: readonly [what: string, moves: readonly number[], entries: string][] = [
    ['none by a beginning without credits', [], ''],
    ['upwards', [30], up],
    ['none above the highest', [30, -9], up],
    ['at the threshold', [30, -10], `${up}, below 20`],
    ['below it, and not again', [30, -11, -1, -1], `${up}, below 20`],
    ['one after another', [30, -15, -10, -5], `${up}, below 20, below 10, below 0`],
    ['several at once', [30, -30], `${up}, below 20, below 10, below 0`],
    ['again after more was granted', [30, -15, 10, -10], `${up}, below 20, above 20, below 20`],
    ['none where too little was granted to leave it', [30, -15, 1, -1], `${up}, below 20`],
  ]
  for (const [what, moves, entries] of rows) {
    test(what, async () => {
      const on = await scene(plan)
      for (const [n, move] of moves.entries())
        await (move > 0 ? on.grant(`g${n}`, move) : on.record(`r${n}`, -move))
      assert.equal(await crossed(on), entries)
    })
  }
  test('by the end of a grant, and by a revocation', async () => {
    for (const how of ['expired', 'revoked']) {
      const on = await scene(plan)
      await on.grant('g', 30, { expires_at: START + HOUR })
      if (how === 'revoked') await on.engine.revokeGrant('a', 'g')
      else on.after(HOUR)
      await on.engine.tidyUp()
      await on.record('r', 0)
      assert.equal(await crossed(on), `${up}, below 20, below 10, below 0`, how)
    }
  })
})

describe('an account that nobody created', () => {
  const missing = async (on: Scene, call: () => Promise<unknown>) => {
    await refused('account_unknown', '/account', call)
    assert.deepEqual((await on.kept()).cells, {})
  }
  test('is an error without a default plan, for every call', async () => {
    const on = await scene(CREDITS_ONLY, { account: null })
    await missing(on, () => on.reserve('r', 1))
    await missing(on, () => on.extend('r', 1))
    await missing(on, () => on.settle('r', { feature: 'job', cost: 1 }))
    await missing(on, () => on.release('r'))
    await missing(on, () => on.record('r', 1))
    await missing(on, () => on.refund('r', 'x'))
    await missing(on, () => on.grant('g', 1))
    await missing(on, () => on.engine.revokeGrant('a', 'g'))
    await missing(on, () => on.engine.patchAccount('a', { status: 'suspended' }))
    await missing(on, () => on.override('x', 1))
    await missing(on, () => on.view())
    await missing(on, () => on.engine.entries('a', {}))
    await missing(on, () => on.engine.explain('a', 'r'))
    await missing(on, () => on.engine.repairClock('a'))
  })
  const welcome: PlanDocument = { ...CREDITS_ONLY, grants: [{ kind: 'free', name: 'welcome', amount: 25 }] }
  const open = () => scene(welcome, { account: null, policy: { default_plan: 'plan' } })
  test('is made by its first request where there is one, with what the plan gives', async () => {
    const on = await open()
    assert.equal((await on.reserve('r', 5)).outcome, 'allow')
    assert.partialDeepStrictEqual(await on.view(), {
      id: 'a',
      plan: 'plan',
      status: 'active',
      time_zone: 'UTC',
      credits: { available: '20' },
    })
    await on.agree()
  })
  test('by a record as well', async () => {
    const on = await open()
    assert.equal((await on.record('r', 5)).charged, '5')
    assert.equal((await on.view()).credits.available, '20')
  })
  test('and not by one that is refused, nor by a question that is not kept', async () => {
    const on = await open()
    assert.equal((await on.reserve('r', 26)).outcome, 'deny')
    assert.equal((await on.reserve('r', { cost: 1, dry_run: true })).outcome, 'allow')
    await refused('account_unknown', '/account', () => on.view())
    assert.deepEqual(await on.kept(), { cells: {}, entries: [] })
  })
  test('and not by a grant: money for a mistyped id is a mistake', async () => {
    const on = await open()
    const grant = { id: 'g', kind: 'purchased', amount: '10' } as const
    await refused('account_unknown', '/account', () => on.engine.grant('a', grant))
    assert.deepEqual(await on.kept(), { cells: {}, entries: [] })
  })
  test('once, by many at a time', async () => {
    const on = await open()
    const answers = await Promise.all(Array.from({ length: 30 }, (_, n) => on.reserve(`r${n}`, 1)))
    assert.equal(answers.filter(({ outcome }) => outcome === 'allow').length, 25)
    await on.agree()
  })
})
