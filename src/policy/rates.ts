/**
 * Rate cards, from exact decimals to integers: each line gets one denominator, and the fraction is reduced, so that an
 * ordinary price stays within what doubles count exactly and `costOf` takes its fast path.
 */
import type { RateCard, RateLine, RateTerm } from '../ledger/price.ts'
import { type Complain, pointer, quote } from './complaints.ts'
import type { RateLineDocument } from './schema.ts'

/** `digits / 10^places`, exactly. */
export interface Decimal {
  readonly digits: bigint
  readonly places: number
}

const DECIMAL = /^(0|[1-9][0-9]{0,9})(?:\.([0-9]{1,12}))?$/
const SCIENTIFIC = /^([0-9])(?:\.([0-9]+))?e([+-][0-9]+)$/

/**
 * Reads a price: a decimal string or a JSON number, not negative, at most ten digits before the point and twelve after.
 * A number counts as the shortest decimal that reads back as itself, and is refused where that has more than 15 digits:
 * then it has been computed, or lost digits on its way. `undefined` for anything else.
 */
export function parsePrice(value: unknown): Decimal | undefined {
  if (typeof value === 'number') {
    const text = plain(value)
    return text === undefined || text.replace(/^0\.0*|\./, '').length > 15 ? undefined : parsePrice(text)
  }
  if (typeof value !== 'string') return undefined
  const match = DECIMAL.exec(value)
  if (match === null) return undefined
  const fraction = match[2] ?? ''
  return { digits: BigInt(`${match[1]}${fraction}`), places: fraction.length }
}

/** `1.9e-8` → `0.000000019`. */
function plain(value: number): string | undefined {
  const text = String(value)
  if (!text.includes('e')) return text
  const match = SCIENTIFIC.exec(text)
  if (match === null) return undefined
  const digits = `${match[1]}${match[2] ?? ''}`
  const exponent = Number(match[3])
  if (exponent > 0) return undefined
  return `0.${'0'.repeat(-exponent - 1)}${digits}`
}

const EXPECTS_PRICE =
  'an exact decimal of at most twelve places (written as text where a number cannot hold it)'

function readPrice(value: unknown, path: string, complain: Complain): Decimal {
  const decimal = parsePrice(value)
  if (decimal === undefined) complain(path, `must be ${EXPECTS_PRICE}, not ${quote(value)}`)
  return decimal ?? { digits: 0n, places: 0 }
}

/** How a number stands in the text, where the document was read from text: `4.0` for 4. */
export type Written = (path: string) => string | undefined

/** Compiles the lines of one card; `undefined` are lines that were complained about already. */
export function compileRateCard(
  lines: readonly (RateLineDocument | undefined)[],
  path: string,
  complain: Complain,
  written: Written = () => undefined,
): RateCard {
  const compiled: RateLine[] = []
  for (const [index, line] of lines.entries()) {
    if (line !== undefined) compiled.push(compileLine(line, index, pointer(path, index), complain, written))
  }
  checkReach(compiled, path, complain)
  return { lines: compiled }
}

interface Priced {
  readonly quantity: string
  readonly price: Decimal
}

function compileLine(
  line: RateLineDocument,
  index: number,
  path: string,
  complain: Complain,
  written: Written,
): RateLine {
  if (line.per_million === undefined && line.per_unit === undefined && line.per_request === undefined) {
    complain(path, 'must have a price: `per_million`, `per_unit` or `per_request` (0 where it is free)', [
      path,
    ])
  }
  const factor = line.multiply === undefined ? ONE : readPrice(line.multiply, `${path}/multiply`, complain)
  const priced: Priced[] = []
  for (const [quantity, value] of Object.entries(line.per_million ?? {})) {
    const { digits, places } = readPrice(value, pointer(`${path}/per_million`, quantity), complain)
    priced.push({ quantity, price: { digits, places: places + 6 } })
  }
  for (const [quantity, value] of Object.entries(line.per_unit ?? {})) {
    const at = pointer(`${path}/per_unit`, quantity)
    if (Object.hasOwn(line.per_million ?? {}, quantity))
      complain(at, 'must be priced once: it stands in `per_million` too')
    priced.push({ quantity, price: readPrice(value, at, complain) })
  }
  // One CU for each request is a million µCU, as many as one unit of a quantity costs at one CU a unit.
  const fixed =
    line.per_request === undefined ? ZERO : readPrice(line.per_request, `${path}/per_request`, complain)
  const when = Object.entries(line.when ?? {}).map(([attribute, value]) => {
    return [attribute, condition(value, pointer(`${path}/when`, attribute), complain, written)] as const
  })
  return { index, when, ...scale(priced, fixed, factor) }
}
const ONE: Decimal = { digits: 1n, places: 0 }
const ZERO: Decimal = { digits: 0n, places: 0 }

/** Attributes are text; `4.0` in YAML is the number 4, and the model called "4.0" would never match it. */
function condition(
  value: string | number | boolean,
  path: string,
  complain: Complain,
  written: Written,
): string {
  const text = String(value)
  if (text.includes('\0') || !text.isWellFormed()) complain(path, 'must be valid Unicode without NUL')
  const source = typeof value === 'number' ? written(path) : undefined
  if (source !== undefined && source !== text)
    complain(path, `must be quoted: ${source} is read as the number ${text}, "${source}" is text`)
  return text
}

/** Brings all prices over one denominator, multiplies, and reduces. */
function scale(priced: readonly Priced[], fixed: Decimal, factor: Decimal): Omit<RateLine, 'index' | 'when'> {
  const most = Math.max(fixed.places, ...priced.map((one) => one.price.places)) + factor.places
  const over = (price: Decimal): bigint =>
    price.digits * factor.digits * 10n ** BigInt(most - factor.places - price.places)
  const denominator = 10n ** BigInt(most)
  const terms: RateTerm[] = priced.map((one) => ({ quantity: one.quantity, numerator: over(one.price) }))
  const fixedNumerator = over(fixed) * 1_000_000n
  const common = terms.reduce(
    (divisor, term) => gcd(divisor, term.numerator),
    gcd(denominator, fixedNumerator),
  )
  return {
    terms: terms.map((term) => ({ quantity: term.quantity, numerator: term.numerator / common })),
    fixedNumerator: fixedNumerator / common,
    denominator: denominator / common,
  }
}

function gcd(a: bigint, b: bigint): bigint {
  while (b !== 0n) [a, b] = [b, a % b]
  return a
}

/**
 * Complains of lines that can never price anything: an earlier line asks for a part of their conditions. Earlier lines
 * are looked up by one of their conditions, so that a card of thousands of models takes milliseconds.
 */
function checkReach(lines: readonly RateLine[], path: string, complain: Complain): void {
  const byCondition = new Map<string, RateLine[]>()
  let open: RateLine | undefined
  for (const line of lines) {
    const own = new Map(line.when)
    const keys = line.when.map(([attribute, value]) => `${attribute}=${value}`)
    const covers = (earlier: RateLine): boolean =>
      earlier.when.every(([attribute, value]) => own.get(attribute) === value)
    const first = open ?? keys.flatMap((key) => byCondition.get(key) ?? []).find(covers)
    const at = pointer(path, line.index)
    if (first !== undefined) complain(at, unreachable(line, first), [at, pointer(path, first.index)])
    else if (line.when.length === 0) open = line
    const key = keys[0]
    if (key === undefined) continue
    const known = byCondition.get(key)
    if (known === undefined) byCondition.set(key, [line])
    else known.push(line)
  }
}

function unreachable(line: RateLine, earlier: RateLine): string {
  if (earlier.when.length === 0)
    return `is never reached: \`rate_card/${earlier.index}\` has no \`when\` and must be the last`
  if (earlier.when.length === line.when.length)
    return `has the same conditions as \`rate_card/${earlier.index}\`: keep one of them`
  return `is never reached: \`rate_card/${earlier.index}\` matches everything that it does; put this line before it`
}
