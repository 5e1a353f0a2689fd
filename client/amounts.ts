/** Amounts of CU as whole micro-units, so that what is let through adds up exactly. */
import type { AmountIn } from '../src/wire.ts'

const AMOUNT = /^(\d+)(?:\.(\d{1,6}))?$/
const MICROS = 1_000_000n

/** Of CU or of a quantity. Throws a `RangeError` for what is no decimal from 0 on with at most six places. */
export function microsOf(amount: AmountIn): bigint {
  const [, whole, places = ''] = AMOUNT.exec(String(amount)) ?? []
  if (whole === undefined)
    throw new RangeError(`${amount} is no amount: give a decimal from 0 on with at most six places`)
  return BigInt(whole) * MICROS + BigInt(places.padEnd(6, '0'))
}

export function amountOf(micros: bigint): string {
  const places = String(micros % MICROS).padStart(6, '0')
  return `${micros / MICROS}.${places}`
}
