/** What a use costs, by fractions and one rounding. */
import type { FeatureDocument, RateLineDocument } from '../policy/schema.ts'
import type { QuantitiesIn } from '../wire.ts'

/** µCU, or millionths of a quantity, from a decimal. */
export function micros(amount: string | number): bigint {
  return decimal(amount, 6)
}

export const inMicros = (quantities: QuantitiesIn): Record<string, bigint> =>
  Object.fromEntries(Object.entries(quantities).map(([name, value]) => [name, micros(value)]))

function decimal(value: string | number, places: number): bigint {
  const [whole = '0', fraction = ''] = String(value).split('.')
  return BigInt(whole + fraction.padEnd(places, '0'))
}

/** `"1.5"` from 1,500,000. */
export function told(amount: bigint): string {
  const sign = amount < 0n ? '-' : ''
  const digits = String(amount < 0n ? -amount : amount).padStart(7, '0')
  const fraction = digits.slice(-6).replace(/0+$/, '')
  return `${sign}${digits.slice(0, -6)}${fraction === '' ? '' : `.${fraction}`}`
}

const SCALE = 10n ** 12n
const MILLION = 1_000_000n

/** Where no line of the rate card fits, nothing is priced. */
export function priceOf(
  feature: FeatureDocument | undefined,
  attributes: Readonly<Record<string, unknown>>,
  quantities: QuantitiesIn,
): { readonly cost: bigint; readonly unpriced: readonly string[]; readonly hasLine: boolean } {
  const line = feature?.rate_card?.find((one) => fits(one, attributes))
  if (line === undefined) return { cost: 0n, unpriced: Object.keys(quantities).sort(), hasLine: false }
  // In µCU, times 10¹² for the price and 10⁶ for `per_million`.
  let sum = price(line.per_request) * MILLION * MILLION
  const unpriced: string[] = []
  for (const [name, quantity] of Object.entries(quantities)) {
    const perUnit = line.per_unit?.[name]
    const perMillion = line.per_million?.[name]
    if (perUnit === undefined && perMillion === undefined) unpriced.push(name)
    sum += micros(quantity) * (price(perUnit) * MILLION + price(perMillion))
  }
  const scale = SCALE * MILLION * SCALE
  const cost = (sum * price(line.multiply ?? 1) + scale - 1n) / scale
  return { cost, unpriced: unpriced.sort(), hasLine: true }
}

const price = (value: string | number | undefined): bigint => (value === undefined ? 0n : decimal(value, 12))

function fits(line: RateLineDocument, attributes: Readonly<Record<string, unknown>>): boolean {
  return Object.entries(line.when ?? {}).every(([name, value]) => String(attributes[name]) === String(value))
}
