/** Amounts of CU as whole micro-units, so that what is let through adds up exactly. */
import type { AmountIn } from '../src/wire.ts'

const AMOUNT = /^(\d+)(?:\.(\d{1,6}))?$/
const MICROS = 1_000_000n

/** Throws a `RangeError` for what is no amount of CU with at most six places. */
export function microsOf(amount: AmountIn): bigint {
  const [, whole, places = ''] = AMOUNT.exec(String(amount)) ?? []
  if (whole === undefined)
    throw new RangeError(`${amount} is no amount: give CU as a decimal with at most six places`)
  return BigInt(whole) * MICROS + BigInt(places.padEnd(6, '0'))
}
