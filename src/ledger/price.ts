import { fromBigInt, type Micros } from '../units.ts'

/** What was measured, by name, in micro-units (8.5 seconds is 8,500,000). Disjoint: input excludes cached input. */
export type Quantities = Readonly<Record<string, number>>
/** What describes a use: model, resolution, mode. */
export type Attributes = Readonly<Record<string, string>>

/** One line of a rate card: the first whose conditions all hold prices the use. */
export interface RateLine {
  /** The line's place in its card as written, which charges name. */
  readonly index: number
  readonly when: readonly (readonly [attribute: string, value: string])[]
  /** cost in µCU = ⌈(Σ quantity·numerator + fixedNumerator) / denominator⌉, quantities in micro-units. */
  readonly terms: readonly RateTerm[]
  readonly fixedNumerator: bigint
  readonly denominator: bigint
}

export interface RateTerm {
  readonly quantity: string
  readonly numerator: bigint
}

export interface RateCard {
  readonly lines: readonly RateLine[]
}

export interface Price {
  readonly costMicros: Micros
  /** The line that priced it; absent where none matched, and then every quantity is unpriced. */
  readonly line: number | undefined
  /** Names of quantities that the line has no price for, in the order given. */
  readonly unpriced: readonly string[]
}

/** The first line whose conditions the attributes meet. */
export function rateLine(card: RateCard, attributes: Attributes): RateLine | undefined {
  for (const line of card.lines) if (matches(line, attributes)) return line
  return undefined
}

function matches(line: RateLine, attributes: Attributes): boolean {
  for (const [attribute, value] of line.when) if (attributes[attribute] !== value) return false
  return true
}

/** Prices quantities by the card, summed exactly and rounded once, up, to a whole µCU. Throws AmountOverflow. */
export function price(card: RateCard, attributes: Attributes, quantities: Quantities): Price {
  const line = rateLine(card, attributes)
  if (line === undefined) return { costMicros: 0, line: undefined, unpriced: Object.keys(quantities) }
  return { costMicros: costOf(line, quantities), line: line.index, unpriced: unpricedBy(line, quantities) }
}

/** A line's numbers as doubles, where they are exact: the common case costs 0.05 µs instead of 0.3. */
interface FastLine {
  readonly terms: readonly { readonly quantity: string; readonly numerator: number }[]
  readonly fixed: number
  readonly denominator: number
}
const fastLines = new WeakMap<RateLine, FastLine>()

function fastLine(line: RateLine): FastLine {
  const known = fastLines.get(line)
  if (known !== undefined) return known
  const fast = {
    terms: line.terms.map((term) => ({ quantity: term.quantity, numerator: Number(term.numerator) })),
    fixed: Number(line.fixedNumerator),
    denominator: Number(line.denominator),
  }
  fastLines.set(line, fast)
  return fast
}

/** What one line asks for these quantities, in µCU. */
export function costOf(line: RateLine, quantities: Quantities): Micros {
  const fast = fastLine(line)
  let sum = fast.fixed
  for (const term of fast.terms) sum += (quantities[term.quantity] ?? 0) * term.numerator
  // Every addend is non-negative, so a safe sum means that each product and each partial sum was exact.
  if (sum <= Number.MAX_SAFE_INTEGER && fast.denominator <= Number.MAX_SAFE_INTEGER)
    return Math.ceil(sum / fast.denominator)
  let exact = line.fixedNumerator
  for (const term of line.terms) exact += BigInt(quantities[term.quantity] ?? 0) * term.numerator
  return fromBigInt((exact + line.denominator - 1n) / line.denominator)
}

function unpricedBy(line: RateLine, quantities: Quantities): readonly string[] {
  const unpriced = Object.keys(quantities).filter((name) => !prices(line, name))
  return unpriced.length === 0 ? NONE : unpriced
}
function prices(line: RateLine, quantity: string): boolean {
  for (const term of line.terms) if (term.quantity === quantity) return true
  return false
}
const NONE: readonly string[] = []
