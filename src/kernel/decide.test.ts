import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { CREDITS_ONLY, cu, FEATURES, HOUR, scene } from '../../test/scene.ts'
import type * as wire from '../wire.ts'

describe('a part is as large as a rate over a quantity has room for', () => {
  // A unit and a token cost 1 CU, each request 10 more.
  const card = [{ per_request: 10, per_unit: { units: 1, tokens: 1 } }]
  const more = { policy: { features: { ...FEATURES, task: { rate_card: card } } } }
  const plan = {
    ...CREDITS_ONLY,
    guards: [{ name: 'tokens', rate: { meter: 'tokens', limit: 50, per: '1h' } }],
  } as const
  // biome-ignore format: a row a line
  const rows: readonly [what: string, credits: number, ask: Partial<wire.ReserveRequest>, granted: Record<string, string> | undefined][] = [
    ['beside a fixed price', 500, { estimate: { tokens: 100 }, min_cost: 1 }, { tokens: '50' }],
    ['beside what must stay whole', 5000, { estimate: { units: 1000, tokens: 100 }, min: { units: 1000, tokens: 16 } }, { units: '1000', tokens: '50' }],
    ['and no larger than is paid for', 1036, { estimate: { units: 1000, tokens: 100 }, min: { units: 1000, tokens: 16 } }, { units: '1000', tokens: '26' }],
    ['unless that is less than the minimum', 5000, { estimate: { tokens: 100 }, min: { tokens: 51 } }, undefined],
  ]
  for (const [what, credits, ask, granted] of rows) {
    test(what, async () => {
      const on = await scene(plan, more)
      await on.grant('g', credits)
      const answer = await on.reserve('r', { feature: 'task', ...ask })
      assert.deepEqual(
        [answer.outcome, answer.granted_estimate],
        granted === undefined ? ['deny', undefined] : ['partial', granted],
      )
      await on.agree()
    })
  }
  test('also of what costs nothing', async () => {
    const free = [{ per_unit: { units: 0, tokens: 0 } }]
    const on = await scene(plan, { policy: { features: { ...FEATURES, task: { rate_card: free } } } })
    const ask = { feature: 'task', estimate: { units: 10, tokens: 100 } }
    assert.equal((await on.reserve('r', ask)).outcome, 'deny')
    const part = await on.reserve('r', { ...ask, min: { tokens: 10 } })
    assert.deepEqual([part.outcome, part.granted_estimate], ['partial', { units: '4', tokens: '50' }])
    for (const least of [{ min: { tokens: 1 } }, { min_cost: 0 }])
      assert.equal((await on.reserve('s', { ...ask, ...least })).outcome, 'deny', 'nothing is left')
    on.after(HOUR / 100)
    assert.equal((await on.reserve('s', { ...ask, min_cost: 0 })).outcome, 'deny', 'nor half a token')
    on.after(HOUR / 100)
    const one = await on.reserve('s', { ...ask, min_cost: 0 })
    assert.deepEqual(one.granted_estimate, { units: '0', tokens: '1' })
    await on.agree()
  })
  test('and there is none where it has no room at all, whatever the fixed price', async () => {
    const on = await scene(plan, more)
    await on.grant('g', 500)
    await on.record('before', { feature: 'task', usage: { tokens: 50 } })
    const ask = { feature: 'task', estimate: { tokens: 40 }, min_cost: 1 }
    assert.equal((await on.reserve('r', ask)).outcome, 'wait')
  })
})

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
