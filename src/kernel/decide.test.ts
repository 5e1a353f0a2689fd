import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { CREDITS_ONLY, cu, scene } from '../../test/scene.ts'
import type * as wire from '../wire.ts'

describe('a part is granted whenever the minimum fits to the micro-unit', () => {
  // A unit costs 1 CU.
  // biome-ignore format: a row a line
  const rows: readonly [estimate: string, credits: number, least: Partial<wire.ReserveRequest>, granted: string][] = [
    ['24.25', 4, { min_cost: 4 }, '4'],
    ['24.25', 4, { min: { units: 4 } }, '4'],
    ['0.000007', 0.000003, { min_cost: '0.000003' }, '0.000003'],
    ['999999.5', 7, { min_cost: 7 }, '7'],
    ['3', 1, { min: { units: 1 } }, '1'],
    ['7', 3, { min: { units: 3 } }, '3'],
    ['7', 3.5, { min_cost: 3 }, '3'],
  ]
  for (const [estimate, credits, least, granted] of rows) {
    test(`${JSON.stringify(least)} of ${estimate} from ${credits} is granted`, async () => {
      const on = await scene(CREDITS_ONLY)
      await on.grant('g', credits)
      const answer = await on.reserve('r', { feature: 'task', estimate: { units: estimate }, ...least })
      assert.partialDeepStrictEqual(answer, {
        outcome: 'partial',
        granted,
        granted_estimate: { units: granted },
      })
    })
  }
  test('whole units stay whole, also where the minimum is a cost between them', async () => {
    const on = await scene(CREDITS_ONLY)
    await on.grant('g', 3.5)
    const ask = { feature: 'task', estimate: { units: 7 }, min_cost: cu(3.5) }
    assert.equal((await on.reserve('r', ask)).outcome, 'deny')
  })
})
