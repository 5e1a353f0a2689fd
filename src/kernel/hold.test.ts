import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { CREDITS_ONLY, scene } from '../../test/scene.ts'

type PlanDocument = Parameters<typeof scene>[0]

describe('what a hold has of one name stays apart where the name came to be counted by something else', () => {
  const counted = (by?: string): object => (by === undefined ? {} : { by })
  // biome-ignore format: a row a line
  const plans: Readonly<Record<string, (by?: string) => PlanDocument>> = {
    'an allowance': (by) => ({ waterfall: [{ allowance: 'a', ...counted(by), windows: [{ name: 'w', limit: 50, per: '5h' }] }] }),
    'a budget': (by) => ({ ...CREDITS_ONLY, guards: [{ name: 'b', ...counted(by), budget: 50, per: '7d' }] }),
    'a rate': (by) => ({ ...CREDITS_ONLY, guards: [{ name: 'r', ...counted(by), rate: { meter: 'cost', limit: 50, per: '1h', algorithm: 'sliding' } }] }),
  }
  for (const [what, planBy] of Object.entries(plans)) {
    for (const [from, to] of [['user'], [undefined, 'user'], ['user', 'team']]) {
      test(`${what}, by ${from ?? 'account'} and then by ${to ?? 'account'}`, async () => {
        const subject = { user: 'u', team: 't' }
        const on = await scene(planBy(from))
        await on.grant('g', 100)
        await on.reserve('r', { cost: 5, subject })
        await on.publish(planBy(to))
        await on.extend('r', 1, 9)
        await on.agree()
        await on.release('r')
        await on.agree()
        assert.deepEqual(await on.reading(subject), { g: '100' })
      })
    }
  }
})
