import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { CREDITS_ONLY, DAY, scene } from '../../test/scene.ts'
import type { PlanDocument } from '../policy/schema.ts'

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
})
