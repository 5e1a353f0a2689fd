import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { CREDITS_ONLY, FEATURES, HOUR, MINUTE, START, scene } from '../../test/scene.ts'
import type * as wire from '../wire.ts'

type PlanDocument = Parameters<typeof scene>[0]

describe('what would unblock an extend', () => {
  const windows: PlanDocument = {
    waterfall: [{ allowance: 'a', windows: [{ name: 'w', limit: 10, per: '1h' }] }],
  }
  const drains: PlanDocument = {
    ...CREDITS_ONLY,
    guards: [{ name: 'cost', rate: { meter: 'cost', limit: 10, per: '1h' } }],
  }
  // The first hold takes 4, another 3; then the first asks for 9 in all.
  // biome-ignore format: a row a line
  const rows: readonly [what: string, plan: PlanDocument, ttl: number, unblock: wire.Unblock][] = [
    ['a window that ends before the hold', windows, 2 * HOUR, { wait_until: START + HOUR, at_most: '7' }],
    ['a window that ends after the hold', windows, 30 * MINUTE, { at_most: '7' }],
    ['a window that ends with the hold', windows, HOUR, { at_most: '7' }],
    ['a rate that drains before the hold ends', drains, HOUR, { wait_until: START + 12 * MINUTE, at_most: '7' }],
    ['a rate that drains after the hold ends', drains, 10 * MINUTE, { at_most: '7' }],
  ]
  for (const [what, plan, ttl_ms, unblock] of rows) {
    test(`is told in new totals, and only until its hold ends: ${what}`, async () => {
      const on = await scene(plan)
      await on.grant('g', 100)
      await on.reserve('r', { cost: 4, ttl_ms })
      await on.record('s', 3)
      const asked = { cost: 9 }
      const refused = await on.extend('r', 1, asked)
      assert.deepEqual(refused.unblock, unblock)
      assert.equal(refused.outcome, unblock.wait_until === undefined ? 'deny' : 'wait')
      if (unblock.wait_until !== undefined) on.clock.now = unblock.wait_until
      else asked.cost = Number(unblock.at_most)
      assert.equal((await on.extend('r', 1, asked)).outcome, 'allow')
      await on.agree()
    })
  }
})

describe('a rate over a quantity is asked by every extend that brings more of it', () => {
  const plan = {
    ...CREDITS_ONLY,
    guards: [{ name: 'tokens', rate: { meter: 'tokens', limit: 50, per: '1h' } }],
  } as const
  // biome-ignore format: a row a line
  const rows: readonly [what: string, price: Record<string, number>, first: Record<string, number>, more: (tokens: number) => Record<string, number>][] = [
    ['of what costs nothing', { tokens: 0 }, { tokens: 30 }, (tokens) => ({ tokens })],
    ['for the same cost', { units: 1, tokens: 0 }, { units: 5, tokens: 30 }, (tokens) => ({ units: 5, tokens })],
    ['for a lower cost', { units: 1, tokens: 0 }, { units: 5, tokens: 30 }, (tokens) => ({ units: 4, tokens })],
    ['for a higher cost', { units: 1, tokens: 1 }, { units: 5, tokens: 30 }, (tokens) => ({ units: 5, tokens })],
  ]
  for (const [what, price, first, more] of rows) {
    test(what, async () => {
      const task = { rate_card: [{ per_unit: price }] }
      const on = await scene(plan, { policy: { features: { ...FEATURES, task } } })
      await on.grant('g', 1000)
      const { granted } = await on.reserve('r', { feature: 'task', estimate: first })
      const tooMany = await on.extend('r', 1, { estimate: more(51) })
      assert.deepEqual([tooMany.reason, tooMany.granted], ['rate_full', granted])
      assert.equal((await on.extend('r', 1, { estimate: more(50) })).outcome, 'allow')
      assert.equal((await on.reading()).tokens, '50')
      assert.equal((await on.extend('r', 2)).outcome, 'allow', 'a heartbeat asks for nothing')
      assert.equal((await on.extend('r', 3, { estimate: more(51) })).outcome, 'wait')
      await on.agree()
      await on.settle('r', { usage: { tokens: 7 } })
      assert.equal((await on.reading()).tokens, '7')
      await on.agree()
    })
  }
})
