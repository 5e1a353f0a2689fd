import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { CREDITS_ONLY, HOUR, type Scene, scene } from '../../test/scene.ts'

type GuardDocument = NonNullable<Parameters<typeof scene>[0]['guards']>[number]
type Does = (on: Scene) => Promise<unknown>
const ALGORITHMS = ['gcra', 'sliding', 'fixed'] as const
const rate = (meter: string, algorithm: (typeof ALGORITHMS)[number]): GuardDocument => ({
  name: 'rate',
  rate: { meter, limit: 1000, per: '1d', algorithm },
})
const units = (amount: number) => ({ feature: 'task', estimate: { units: amount } })
const used = (amount: number) => ({ usage: { units: amount } })

/** A unit costs 1 CU, so that both meters say the same. */
describe('a rate over amounts counts what was used, whatever was estimated', () => {
  // biome-ignore format: a row a line
  const rows: readonly [what: string, does: readonly Does[], counted: string][] = [
    ['less than estimated', [(on) => on.reserve('r', units(9)), (on) => on.settle('r', used(4))], '4'],
    ['more than estimated', [(on) => on.reserve('r', units(9)), (on) => on.settle('r', used(40))], '40'],
    ['a cost was reserved', [(on) => on.reserve('r', { feature: 'task', cost: 9 }), (on) => on.settle('r', used(40))], '40'],
    ['and less was used', [(on) => on.reserve('r', { feature: 'task', cost: 9 }), (on) => on.settle('r', used(4))], '4'],
    ['a quantity that was not estimated', [(on) => on.reserve('r', { feature: 'task', estimate: { tokens: 1 } }), (on) => on.settle('r', used(4))], '4'],
    ['extended and released', [(on) => on.reserve('r', units(9)), (on) => on.extend('r', 1, units12()), (on) => on.release('r')], '0'],
    ['extended and partly used', [(on) => on.reserve('r', units(9)), (on) => on.extend('r', 1, units12()), (on) => on.settle('r', used(10))], '10'],
    ['extended and less than first held', [(on) => on.reserve('r', units(9)), (on) => on.extend('r', 1, units12()), (on) => on.settle('r', used(5))], '5'],
    ['extended by a cost, then by an estimate', [(on) => on.reserve('r', units(9)), (on) => on.extend('r', 1, 10), (on) => on.extend('r', 2, units12()), (on) => on.settle('r', used(12))], '12'],
  ]
  function units12(): { readonly estimate: { readonly units: number } } {
    return { estimate: { units: 12 } }
  }
  for (const algorithm of ALGORITHMS) {
    for (const meter of ['units', 'cost']) {
      for (const [what, does, counted] of rows) {
        test(`${what}: ${meter} by ${algorithm}`, async () => {
          const on = await scene({ ...CREDITS_ONLY, guards: [rate(meter, algorithm)] })
          await on.grant('g', 1000)
          for (const step of does) await step(on)
          assert.equal((await on.view()).limits[0]?.used, counted)
          await on.agree()
        })
      }
    }
  }
  test('what an extend took goes back where the level has drained since the reserve', async () => {
    const on = await scene({ ...CREDITS_ONLY, guards: [rate('cost', 'gcra')] })
    await on.grant('g', 1000)
    await on.reserve('r', { cost: 1, ttl_ms: 4 * HOUR })
    on.after(HOUR)
    await on.extend('r', 1, 900)
    await on.release('r')
    assert.equal((await on.view()).limits[0]?.used, '0')
  })
  test('a hold that was charged by itself is corrected by its settle, though no quantity was estimated', async () => {
    const hold = { ttl: '10m', on_expiry: 'charge' } as const
    const on = await scene({ ...CREDITS_ONLY, hold, guards: [rate('units', 'sliding')] })
    await on.grant('g', 1000)
    await on.reserve('r', { feature: 'task', cost: 9 })
    on.after(HOUR)
    await on.settle('r', used(7))
    assert.equal((await on.view()).limits[0]?.used, '7')
    await on.agree()
  })
  test('a rate that has come to leave the feature out gives back, and counts no more', async () => {
    const guard = rate('cost', 'sliding')
    const on = await scene({ ...CREDITS_ONLY, guards: [guard] })
    await on.grant('g', 1000)
    for (const id of ['r', 's']) await on.reserve(id, 9)
    await on.publish({ ...CREDITS_ONLY, guards: [{ ...guard, features: ['other'] }] })
    await on.settle('r', 40)
    await on.settle('s', 4)
    assert.equal((await on.view()).limits[0]?.used, '13')
  })
})
