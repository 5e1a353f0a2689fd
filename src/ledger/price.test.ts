import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { AmountOverflow } from '../units.ts'
import { costOf, price, type RateCard, type RateLine } from './price.ts'

/** 43.75 CU and 350 CU a million: µCU for a micro-unit is 43.75 / 10^6, over a denominator of 10^8. */
const CODEX: RateLine = {
  index: 0,
  when: [['model', 'gpt-5.3-codex']],
  terms: [
    { quantity: 'input_tokens', numerator: 4375n },
    { quantity: 'output_tokens', numerator: 35_000n },
  ],
  fixedNumerator: 0n,
  denominator: 100_000_000n,
}
const FIXED: RateLine = {
  index: 1,
  when: [],
  terms: [{ quantity: 'seconds', numerator: 5n }],
  fixedNumerator: 1_000_000n,
  denominator: 2n,
}
const CARD: RateCard = { lines: [CODEX, FIXED] }

const COSTS: readonly (readonly [RateLine, Record<string, number>, number])[] = [
  [CODEX, { input_tokens: 1_000_000_000_000 }, 43_750_000],
  [CODEX, { input_tokens: 1_000_000, output_tokens: 1_000_000 }, 394],
  [CODEX, { output_tokens: 1 }, 1],
  [CODEX, {}, 0],
  [CODEX, { input_tokens: 0 }, 0],
  [FIXED, {}, 500_000],
  [FIXED, { seconds: 8_500_000 }, 21_750_000],
  [FIXED, { seconds: 1 }, 500_003],
]
for (const [line, quantities, cost] of COSTS) {
  test(`line ${line.index} asks ${cost} µCU for ${JSON.stringify(quantities)}`, () => {
    assert.equal(costOf(line, quantities), cost)
  })
}

test('the first line whose conditions hold prices, and what it does not name is unpriced', () => {
  assert.deepEqual(price(CARD, { model: 'gpt-5.3-codex' }, { input_tokens: 1_000_000, images: 1_000_000 }), {
    costMicros: 44,
    line: 0,
    unpriced: ['images'],
  })
  assert.equal(price(CARD, { model: 'another' }, { seconds: 0 }).line, 1)
  assert.deepEqual(price({ lines: [CODEX] }, {}, { input_tokens: 1 }), {
    costMicros: 0,
    line: undefined,
    unpriced: ['input_tokens'],
  })
})

test('a cost is the exact sum, rounded once and up, whatever the size of the numbers', () => {
  const natural = fc.nat({ max: 1_000_000_000 })
  fc.assert(
    fc.property(
      natural,
      natural,
      fc.nat({ max: 9_000_000_000_000 }),
      fc.nat({ max: 9_000_000_000_000 }),
      natural,
      (a, b, x, y, fixed) => {
        const line: RateLine = {
          index: 0,
          when: [],
          terms: [
            { quantity: 'x', numerator: BigInt(a) },
            { quantity: 'y', numerator: BigInt(b) },
          ],
          fixedNumerator: BigInt(fixed),
          denominator: 100_000_000n,
        }
        const exact = BigInt(x) * BigInt(a) + BigInt(y) * BigInt(b) + BigInt(fixed)
        const cost = (exact + 99_999_999n) / 100_000_000n
        if (cost > BigInt(Number.MAX_SAFE_INTEGER))
          assert.throws(() => costOf(line, { x, y }), AmountOverflow)
        else assert.equal(BigInt(costOf(line, { x, y })), cost)
      },
    ),
  )
})
