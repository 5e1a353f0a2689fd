import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { CREDITS_ONLY, HOUR, scene } from '../../test/scene.ts'

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
