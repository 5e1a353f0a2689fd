import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { ALL_CREDITS, CREDITS_ONLY, DAY, HOUR, type Scene, START, scene } from '../../test/scene.ts'

type PlanDocument = Parameters<typeof scene>[0]

describe('a gap of many periods leaves what they would have left one by one', () => {
  const daily = (features?: string[]): PlanDocument => ({
    ...CREDITS_ONLY,
    grants: [{ kind: 'plan', amount: '2', every: 'day', ...(features === undefined ? {} : { features }) }],
  })
  // biome-ignore format: a row a line
  const rows: readonly [what: string, plan: PlanDocument, used: number, days: number, debt: string, available: string][] = [
    ['debt is repaid by each', daily(), 62, 50, '0', '2'],
    ['as far as they go', daily(), 202, 50, '100', '0'],
    ['and no more', daily(), 5, 50, '0', '2'],
    ['but not by grants with a scope', daily(['other']), 20, 50, '20', '2'],
  ]
  for (const [what, plan, used, days, debt, available] of rows) {
    for (const steps of [1, days]) {
      test(`${what}, ${steps === 1 ? 'in one step' : 'day by day'}`, async () => {
        const on = await scene(plan, { horizonMs: 400 * DAY })
        await on.record('r', used)
        for (let step = 0; step < steps; step++) {
          on.after((days / steps) * DAY)
          await on.engine.tidyUp()
        }
        const { credits } = await on.view()
        assert.partialDeepStrictEqual(credits, { debt, available })
        await on.agree()
      })
    }
  }

  type Before = (on: Scene) => Promise<unknown>
  const often: PlanDocument = { ...CREDITS_ONLY, grants: [{ kind: 'plan', amount: '2', every: '6h' }] }
  const twice: PlanDocument = {
    ...CREDITS_ONLY,
    grants: [
      { kind: 'plan', amount: '2', every: '6h' },
      { kind: 'free', amount: '10', every: '20d' },
    ],
  }
  const charging: PlanDocument = {
    waterfall: [ALL_CREDITS],
    grants: [{ kind: 'plan', amount: '2', every: '6h' }],
    hold: { ttl: '10d', max_lifetime: '10d', on_expiry: 'charge' },
  }
  // biome-ignore format: a row a line
  const between: readonly [what: string, plan: PlanDocument, before: Before][] = [
    ['a grant that starts meanwhile repays its part', often, async (on) => {
      await on.grant('g', 30, { starts_at: START + 5 * DAY + HOUR })
      await on.record('r', 70)
    }],
    ['so does a grant that seldom recurs', twice, (on) => on.record('r', 92)],
    ['a hold that is charged at its end finds the credits of then', charging, async (on) => {
      await on.reserve('r', 2)
      await on.extend('r', 1, { used: { units: 1 }, ttl_ms: 10 * DAY, cost: 2 })
    }],
    ['and what it costs beyond itself is repaid by what comes later', charging, async (on) => {
      await on.reserve('r', { feature: 'task', estimate: { units: 2 } })
      await on.extend('r', 1, { used: { units: 9 }, ttl_ms: 10 * DAY })
    }],
  ]
  for (const [what, plan, before] of between) {
    test(`${what}, in one step as hour by hour`, async () => {
      const ends: unknown[] = []
      for (const steps of [1, 30 * 24]) {
        const on = await scene(plan, { horizonMs: 400 * DAY })
        await before(on)
        for (let step = 0; step < steps; step++) {
          on.after((30 * DAY) / steps)
          await on.engine.tidyUp()
          await on.engine.sweep()
        }
        const { credits } = await on.view()
        const left = credits.grants.map(({ kind, remaining, expires_at }) => ({
          kind,
          remaining,
          expires_at,
        }))
        ends.push({ ...credits, grants: left })
        await on.agree()
      }
      assert.deepEqual(ends[0], ends[1])
    })
  }
})
