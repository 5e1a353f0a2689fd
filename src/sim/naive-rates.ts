/** Rates as lists of everything that was ever admitted, added up again at every look. */
import type { Millis } from '../units.ts'

export interface Pace {
  readonly algorithm: 'gcra' | 'sliding' | 'fixed'
  readonly perMs: Millis
  /** In the meter's own unit: requests, µCU, or millionths of a quantity. */
  readonly limit: bigint
  readonly capacity: bigint
}

/** One look that changed something. Given back means that `amount` is less than it was, as if it had never been more. */
export interface Admission {
  readonly at: Millis
  readonly pace: Pace
  amount: bigint
}

export interface RateBook {
  readonly admissions: Admission[]
  /**
   * What another algorithm or period admitted, of which nothing counts by the one in force (`spentBy`). Until something is admitted
   * by that, it may still be kept, and count again by the former; or it has gone.
   */
  former: Admission[]
  spentBy: Pace | undefined
  /** Set where no plan had the name for a while: then the state may have gone. */
  isDoubtful: boolean
  /** Each time a level is lowered, up to one unit of it may stay. */
  givenBack: bigint
}

export const emptyRate = (): RateBook => ({
  admissions: [],
  former: [],
  spentBy: undefined,
  isDoubtful: false,
  givenBack: 0n,
})

/** Answers what was admitted, so that it can be given back. */
export function admit(book: RateBook, pace: Pace, amount: bigint, at: Millis): Admission {
  const admission = { at, pace, amount }
  book.former = []
  book.admissions.push(admission)
  return admission
}

/** The history is told anew without it. */
export function giveBack(book: RateBook, pace: Pace, admission: Admission, amount: bigint, at: Millis): void {
  admission.amount -= amount
  book.givenBack += 1n
  // Giving back looks at the level, and a level that was looked at drains at the new pace from then on.
  book.admissions.push({ at, pace, amount: 0n })
}

const isOtherKind = (one: Pace, pace: Pace): boolean =>
  one.algorithm !== pace.algorithm || one.perMs !== pace.perMs

/** None of it counts by this pace, which has just been told. */
export function spend(book: RateBook, pace: Pace): void {
  book.former.push(...book.admissions)
  book.admissions.length = 0
  book.spentBy = pace
}

/** By another pace than the one it was spent by, it may count again. */
export function recall(book: RateBook, pace: Pace): void {
  if (book.former.length === 0 || book.spentBy === undefined || !isOtherKind(book.spentBy, pace)) return
  book.admissions.unshift(...book.former)
  book.former = []
  book.isDoubtful = true
}

/** Whether something was admitted by another algorithm or period: what becomes of that is not predicted. */
export const isLoose = (book: RateBook, pace: Pace): boolean =>
  book.admissions.some((one) => isOtherKind(one.pace, pace))

/** What counts nothing any more may be forgotten, and then no later pace brings it back. */
export function doubtIdle(book: RateBook, at: Millis): void {
  const last = book.admissions.at(-1)
  if (last !== undefined && used(book, last.pace, at) === 0n) book.isDoubtful = true
}

/** What counts now, in whole units, rounded up. */
export function used(book: RateBook, pace: Pace, at: Millis): bigint {
  if (pace.algorithm === 'gcra') return level(book, pace, at)
  const since = pace.algorithm === 'sliding' ? at - pace.perMs : Math.floor(at / pace.perMs) * pace.perMs - 1
  return book.admissions.filter((one) => one.at > since).reduce((sum, one) => sum + one.amount, 0n)
}

/** A leaky bucket, in units of 1/perMs so that nothing is rounded. */
function level(book: RateBook, pace: Pace, now: Millis): bigint {
  const per = BigInt(pace.perMs)
  let scaled = 0n
  let since = now
  const drain = (limit: bigint, to: Millis): void => {
    const left = scaled - limit * BigInt(to - since)
    scaled = left > 0n ? left : 0n
    since = to
  }
  for (const { at, pace: then, amount } of book.admissions) {
    if (scaled === 0n) since = at
    drain(then.limit, at)
    scaled += amount * per
  }
  drain(pace.limit, now)
  return (scaled + per - 1n) / per
}
