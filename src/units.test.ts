import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import {
  AmountOverflow,
  add,
  formatMicros,
  MAX_MICROS,
  mulDivCeil,
  mulDivFloor,
  parseMicros,
} from './units.ts'

const READ: readonly (readonly [unknown, number | undefined])[] = [
  ['0', 0],
  ['12.5', 12_500_000],
  ['0.000001', 1],
  ['12.500000', 12_500_000],
  ['9007199254.740991', MAX_MICROS],
  ['9007199254.740992', undefined],
  ['99999999999999999', undefined],
  ['0.0000001', undefined],
  ['01', undefined],
  ['.5', undefined],
  ['5.', undefined],
  ['-1', undefined],
  ['+1', undefined],
  ['1e3', undefined],
  [' 1', undefined],
  ['1 ', undefined],
  ['', undefined],
  ['٣', undefined],
  ['0x10', undefined],
  ['Infinity', undefined],
  [0, 0],
  [-0, 0],
  [12.5, 12_500_000],
  [0.1, 100_000],
  [1e-6, 1],
  [1e-7, undefined],
  [0.1 + 0.2, undefined],
  [1e21, undefined],
  [9007199254, 9_007_199_254_000_000],
  [9007199255, undefined],
  [-1, undefined],
  [Number.NaN, undefined],
  [Number.POSITIVE_INFINITY, undefined],
  [null, undefined],
  [undefined, undefined],
  [true, undefined],
  [[], undefined],
  [{}, undefined],
  [10n, undefined],
]

for (const [given, micros] of READ) {
  test(`an amount of ${typeof given === 'string' ? JSON.stringify(given) : String(given)} is ${micros ?? 'refused'}`, () => {
    const read = parseMicros(given)
    assert.ok(Object.is(read, micros), `${read}`)
  })
}

test('every amount prints as a decimal that reads back as itself', () => {
  fc.assert(
    fc.property(fc.maxSafeNat(), (micros) => {
      assert.equal(parseMicros(formatMicros(micros)), micros)
    }),
  )
})

test('negative amounts keep their sign, and nothing prints a negative zero', () => {
  assert.equal(formatMicros(-12_500_000), '-12.5')
  assert.equal(formatMicros(999_999_999_999_999), '999999999.999999')
  assert.equal(formatMicros(1_000_000_000_000_001), '1000000000.000001')
  assert.equal(formatMicros(-1), '-0.000001')
  assert.equal(formatMicros(-0), '0')
})

test('a sum outside the safe range is refused', () => {
  assert.equal(add(MAX_MICROS, 0), MAX_MICROS)
  assert.throws(() => add(MAX_MICROS, 1), AmountOverflow)
  assert.throws(() => add(-MAX_MICROS, -1), AmountOverflow)
})

test('products beyond the safe range divide exactly, down and up', () => {
  fc.assert(
    fc.property(
      fc.maxSafeNat(),
      fc.nat({ max: 1_000_000 }),
      fc.integer({ min: 1_000_000, max: 10_000_000 }),
      (a, b, c) => {
        const exact = BigInt(a) * BigInt(b)
        assert.equal(BigInt(mulDivFloor(a, b, c)), exact / BigInt(c))
        assert.equal(BigInt(mulDivCeil(a, b, c)), (exact + BigInt(c) - 1n) / BigInt(c))
      },
    ),
  )
})

test('a quotient outside the safe range is refused', () => {
  assert.throws(() => mulDivFloor(MAX_MICROS, 3, 2), AmountOverflow)
  assert.throws(() => mulDivCeil(MAX_MICROS, 3, 2), AmountOverflow)
})
