/**
 * The two units everything is counted in, and their checked arithmetic.
 *
 * `Micros`: an integer of µCU (1 CU = 1,000,000 µCU) in safe-integer range. Quantities use the same scale:
 * a quantity of 8.5 seconds is 8,500,000 micro-units. `Millis`: an integer of milliseconds, an instant since
 * the epoch where the name ends in `At`, a duration where it ends in `Ms`.
 */
export type Micros = number
export type Millis = number

export const MICROS_PER_UNIT = 1_000_000
/** The largest amount that one field may hold: 9,007,199,254.740991 CU. */
export const MAX_MICROS: Micros = Number.MAX_SAFE_INTEGER

/** A sum left the safe-integer range. Nothing has been written when this is thrown. */
export class AmountOverflow extends RangeError {
  override readonly name = 'AmountOverflow'
}

/** `a + b`, refused outside safe-integer range. Either may be negative. */
export function add(a: Micros, b: Micros): Micros {
  const sum = a + b
  if (!Number.isSafeInteger(sum)) throw new AmountOverflow(`${a} + ${b} is outside the safe range of amounts`)
  return sum
}

/** `a − b`, refused outside safe-integer range. */
export function subtract(a: Micros, b: Micros): Micros {
  return add(a, -b)
}

/** `⌊a·b / c⌋`, exact for non-negative integers; the product may exceed the safe range, the quotient may not. */
export function mulDivFloor(a: number, b: number, c: number): number {
  const product = a * b
  if (product <= Number.MAX_SAFE_INTEGER) return Math.floor(product / c)
  return fromBigInt((BigInt(a) * BigInt(b)) / BigInt(c))
}

/** `⌈a·b / c⌉`, exact for non-negative integers; the product may exceed the safe range, the quotient may not. */
export function mulDivCeil(a: number, b: number, c: number): number {
  const product = a * b
  if (product <= Number.MAX_SAFE_INTEGER) return Math.ceil(product / c)
  const divisor = BigInt(c)
  return fromBigInt((BigInt(a) * BigInt(b) + divisor - 1n) / divisor)
}

/** A BigInt as a number, refused outside safe-integer range. */
export function fromBigInt(value: bigint): number {
  const number = Number(value)
  if (!Number.isSafeInteger(number)) throw new AmountOverflow(`${value} is outside the safe range of amounts`)
  return number
}

const DECIMAL = /^(0|[1-9]\d*)(?:\.(\d{1,6}))?$/

/**
 * Reads a non-negative decimal with at most six places, as a string (`"12.5"`) or a JSON number that is exact at that
 * precision, into micro-units. Answers `undefined` for anything else: signs, exponents, spaces, a seventh place,
 * NaN, or a value over `MAX_MICROS`.
 */
export function parseMicros(value: unknown): Micros | undefined {
  if (typeof value === 'number') {
    if (Number.isInteger(value)) {
      const micros = value * MICROS_PER_UNIT
      return value >= 0 && Number.isSafeInteger(micros) ? micros + 0 : undefined
    }
    // The shortest decimal that reads back as this number is what the caller wrote; above 2^33 six places are not exact.
    return value > 0 && value < 2 ** 33 ? parseMicros(plainDecimal(value)) : undefined
  }
  if (typeof value !== 'string' || value.length > 17) return undefined
  const match = DECIMAL.exec(value)
  if (match === null) return undefined
  const micros = Number(match[1]) * MICROS_PER_UNIT + Number((match[2] ?? '').padEnd(6, '0'))
  return Number.isSafeInteger(micros) ? micros : undefined
}

/** `0.000001` prints as `1e-6`; six places are all that an amount has. */
function plainDecimal(value: number): string {
  const text = String(value)
  if (!text.includes('e')) return text
  const fixed = value.toFixed(6)
  return Number(fixed) === value ? fixed.replace(/0+$/, '') : text
}

/** Prints micro-units as the shortest plain decimal: 12,500,000 → `"12.5"`. Negative amounts keep their sign. */
export function formatMicros(micros: Micros): string {
  // The quotient has at most 15 digits then, and so many a double's shortest decimal gives back as they were.
  if (micros >= 0 && micros < 1e15) return String(micros / MICROS_PER_UNIT)
  if (micros < 0) return `-${formatMicros(-micros)}`
  const whole = Math.floor(micros / MICROS_PER_UNIT)
  let rest = micros % MICROS_PER_UNIT
  if (rest === 0) return String(whole)
  let places = 6
  for (; rest % 10 === 0; rest /= 10) places -= 1
  return `${whole}.${String(rest).padStart(places, '0')}`
}
