import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { price } from '../ledger/price.ts'
import { formatMicros, parseMicros } from '../units.ts'
import { compileRateCard, parsePrice } from './rates.ts'
import type { RateLineDocument } from './schema.ts'

const compile = (...lines: readonly RateLineDocument[]) =>
  compileRateCard(lines, '/rate_card', (path, message) => assert.fail(`${path} ${message}`))

function cost(
  lines: readonly RateLineDocument[],
  attributes: Record<string, string>,
  quantities: Record<string, string | number>,
) {
  const micros = Object.entries(quantities).map(
    ([name, value]) => [name, parseMicros(value) ?? Number.NaN] as const,
  )
  return formatMicros(price(compile(...lines), attributes, Object.fromEntries(micros)).costMicros)
}

const PRICES: readonly (readonly [written: unknown, digits: bigint | undefined, places?: number])[] = [
  [0, 0n, 0],
  [-0, 0n, 0],
  [43.75, 4375n, 2],
  ['4.375', 4375n, 3],
  ['4.3750', 43750n, 4],
  [1.9e-8, 19n, 9],
  [1e-12, 1n, 12],
  [2.4414e-7, 24414n, 11],
  [1234567890, 1234567890n, 0],
  [0.000001, 1n, 6],
  [1e-13, undefined],
  [0.1 + 0.2, undefined],
  [12345678901, undefined],
  [1e21, undefined],
  [-1, undefined],
  [Number.NaN, undefined],
  [Infinity, undefined],
  ['1e-6', undefined],
  ['01', undefined],
  ['.5', undefined],
  ['1.', undefined],
  [' 1', undefined],
  ['', undefined],
  [null, undefined],
]

for (const [written, digits, places] of PRICES) {
  test(`the price ${typeof written === 'string' ? JSON.stringify(written) : String(written)} is ${digits === undefined ? 'refused' : `${digits}/10^${places}`}`, () => {
    assert.deepEqual(parsePrice(written), digits === undefined ? undefined : { digits, places })
  })
}

/**
 * CU per million tokens: input, cached input, output. Facts of "Codex rate card", OpenAI Help Center, read in 2026; the
 * factor of fast mode from "Codex speed", OpenAI developers. The last column is a million, half a million and 1,234 tokens.
 */
const CODEX: readonly (readonly [
  model: string,
  input: number,
  cached: number,
  output: number,
  factor: number,
  cost: string,
])[] = [
  ['gpt-5.5', 125, 12.5, 750, 1, '132.1755'],
  ['gpt-5.5 fast', 125, 12.5, 750, 2.5, '330.43875'],
  ['gpt-5.4', 62.5, 6.25, 375, 1, '66.08775'],
  ['gpt-5.4 fast', 62.5, 6.25, 375, 2, '132.1755'],
  ['gpt-5.4-mini', 18.75, 1.875, 113, 1, '19.826942'],
  ['gpt-5.3-codex', 43.75, 4.375, 350, 1, '46.3694'],
  ['gpt-5.1-codex-max', 31.25, 3.125, 250, 1, '33.121'],
  ['gpt-5.3-codex-spark', 0, 0, 0, 1, '0'],
]

for (const [model, input, cached, output, factor, expected] of CODEX) {
  test(`a task on ${model} costs ${expected} CU`, () => {
    const line = {
      per_million: { input_tokens: input, cached_input_tokens: cached, output_tokens: output },
      multiply: factor,
    }
    const used = { input_tokens: 1_000_000, cached_input_tokens: 500_000, output_tokens: 1234 }
    assert.equal(cost([line], {}, used), expected)
  })
}

/** US dollars per second of video at 25 CU a dollar: LiteLLM price list (BerriAI/litellm, MIT), read in 2026. */
const VIDEO: readonly (readonly [model: string, resolution: string, seconds: string, cost: string])[] = [
  ['sora-2', '720p', '8.5', '21.25'],
  ['sora-2-pro', '720p', '8', '60'],
  ['sora-2-pro', '1080p', '0.000001', '0.000013'],
  ['sora-2-pro', '1080p', '12', '150'],
  ['another', '480p', '4', '10'],
]

for (const [model, resolution, seconds, expected] of VIDEO) {
  test(`${seconds} s of ${model} at ${resolution} cost ${expected} CU`, () => {
    const lines = [
      { when: { model: 'sora-2-pro', resolution: '1080p' }, per_unit: { seconds: 12.5 } },
      { when: { model: 'sora-2-pro' }, per_unit: { seconds: 7.5 } },
      { per_unit: { seconds: 2.5 } },
    ]
    assert.equal(cost(lines, { model, resolution }, { seconds }), expected)
  })
}

test('ordinary prices reduce to numbers that doubles count exactly', () => {
  const [line] = compile({ per_million: { a: 43.75, b: 4.375, c: 350 } }).lines
  assert.deepEqual(
    line?.terms.map((term) => term.numerator),
    [70n, 7n, 560n],
  )
  assert.equal(line?.denominator, 1_600_000n)
})

test('a price of zero is a price, and leaves nothing unpriced', () => {
  const card = compile({ per_million: { tokens: 0 } })
  assert.deepEqual(price(card, {}, { tokens: 5, other: 5 }), { costMicros: 0, line: 0, unpriced: ['other'] })
})

test('the amount for a request is added, and multiplied', () => {
  assert.equal(cost([{ per_request: '0.5', multiply: 3, per_unit: { calls: 1 } }], {}, { calls: 2 }), '7.5')
})

test('a card of thousands of models is checked in milliseconds', () => {
  const lines = Array.from({ length: 3000 }, (_, index) => ({
    when: { model: `m${index}`, mode: 'batch' },
    per_request: 1,
  }))
  const from = performance.now()
  assert.equal(compile(...lines).lines.length, 3000)
  assert.ok(performance.now() - from < 500)
})

test('every compiled price equals exact arithmetic on the decimals that are written', () => {
  const decimal = fc
    .tuple(fc.bigInt(0n, 9_999_999_999n), fc.integer({ min: 0, max: 12 }), fc.bigInt(0n, 999_999_999_999n))
    .map(([whole, places, fraction]) => {
      return places === 0 ? String(whole) : `${whole}.${String(fraction).padStart(12, '0').slice(0, places)}`
    })
  const small = fc.oneof(
    decimal.map((text) => text.replace(/^\d+/, '0')),
    fc.constantFrom('0', '1', '2.5', '43.75'),
  )
  const exact = (text: string): bigint => {
    const [whole = '', fraction = ''] = text.split('.')
    return BigInt(whole + fraction.padEnd(12, '0'))
  }
  const line = fc.record({ million: small, unit: small, request: small, factor: small })
  fc.assert(
    fc.property(
      line,
      fc.integer({ min: 0, max: 1e13 }),
      fc.integer({ min: 0, max: 1e10 }),
      (written, a, b) => {
        const card = compile({
          per_million: { a: written.million },
          per_unit: { b: written.unit },
          per_request: written.request,
          multiply: written.factor,
        })
        // All in µCU times 10^24 (price and factor have 12 places each) times a million (for `per_million`).
        const sum =
          BigInt(a) * exact(written.million) +
          (BigInt(b) * exact(written.unit) + 1_000_000n * exact(written.request)) * 1_000_000n
        const divisor = 10n ** 30n
        const expected = (sum * exact(written.factor) + divisor - 1n) / divisor
        assert.equal(BigInt(price(card, {}, { a, b }).costMicros), expected)
      },
    ),
    { numRuns: 500 },
  )
})

test('a line is unreachable exactly where some use that it matches is never priced by it', () => {
  const when = fc.dictionary(fc.constantFrom('a', 'b', 'c'), fc.constantFrom('1', '2'), {
    minKeys: 0,
    maxKeys: 3,
  })
  fc.assert(
    fc.property(fc.array(when, { minLength: 1, maxLength: 6 }), (conditions) => {
      const told = new Set<string>()
      const lines = conditions.map((one) =>
        Object.keys(one).length === 0 ? { per_request: 1 } : { when: one, per_request: 1 },
      )
      compileRateCard(lines, '', (path) => void told.add(path))
      for (const [index, own] of conditions.entries()) {
        const before = conditions.slice(0, index)
        const covered = before.some((other) =>
          Object.entries(other).every(([key, value]) => own[key] === value),
        )
        assert.equal(told.has(`/${index}`), covered)
      }
    }),
    { numRuns: 500 },
  )
})
