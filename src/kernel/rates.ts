/**
 * Rates: how much was admitted lately. Amounts are non-negative safe integers in the meter's unit (requests, µCU,
 * micro-units of a quantity), instants are milliseconds. `now` never lies before an instant the state has seen; where it
 * does all the same, no time has passed.
 *
 * - `gcra`: the leaky bucket as a meter, equivalent to the generic cell rate algorithm (ITU-T I.371; ATM Forum,
 *   Traffic Management 4.1, section 4.4.2). A level rises by what is admitted and drains `limit` per `perMs`; admitted is
 *   what keeps it within `capacity`. Exact: the level is an integer with a remainder, so that nothing is lost by rounding
 *   however often it is looked at.
 * - `sliding`: what was admitted in `(now − perMs, now]`. The log is exact while it has at most 32 admissions. Beyond that,
 *   admissions in one sub-window of perMs/32 are merged at the time of the last. So no span of `perMs` ever admits more
 *   than the limit, and an admission may count too long, by less than perMs/32. A log has at most 33 items.
 * - `fixed`: what was admitted since the last multiple of `perMs` since the epoch. Two windows may meet in twice the limit.
 *
 * A guard may change over live state. What counts stays and the new limit and period hold for it: a level drains at the new
 * pace from the last admission on (a new period reads the remainder anew, which moves the level by less than one unit), and
 * a state that another algorithm left is taken over with what it counts.
 */
import { add, type Millis } from '../units.ts'
import type { FixedState, GcraState, RateState, SlidingState } from './cells.ts'
import type { RateGuard } from './plan.ts'

export interface RateView {
  /** What counts now, rounded up. It may exceed the capacity: usage that has happened is counted whatever the limit. */
  readonly used: number
  /** The largest amount that is admitted now, from 0 to the capacity. */
  readonly available: number
  /** When nothing counts any more, if nothing else happens; null where nothing counts, or always will (a limit of 0). */
  readonly resetsAt: Millis | null
}

/** What counts and what fits now. */
export function rateView(guard: RateGuard, state: RateState | undefined, now: Millis): RateView {
  if (state === undefined) return { used: 0, available: guard.capacity, resetsAt: null }
  if (guard.algorithm === 'gcra') return gcraView(guard, asGcra(guard, state, now), now)
  if (guard.algorithm === 'sliding') return slidingView(guard, asSliding(guard, state, now), now)
  return fixedView(guard, asFixed(guard, state, now))
}

/**
 * The earliest instant from `now` on at which `amount` would be admitted if nothing else happened; null where it never
 * will, because it exceeds the capacity or nothing drains. In a merged sliding log up to perMs/32 later than need be.
 */
export function rateFreeAt(
  guard: RateGuard,
  state: RateState | undefined,
  amount: number,
  now: Millis,
): Millis | null {
  if (amount > guard.capacity) return null
  if (amount === 0 || state === undefined) return now
  if (guard.algorithm === 'gcra') return gcraFreeAt(guard, asGcra(guard, state, now), amount, now)
  if (guard.algorithm === 'sliding') return slidingFreeAt(guard, asSliding(guard, state, now), amount, now)
  const fixed = asFixed(guard, state, now)
  return amount <= fixedView(guard, fixed).available ? now : fixedEnd(guard, fixed)
}

/** Counts `amount`, even past the limit: whoever decides has asked `rateView`. Throws `AmountOverflow` beyond safe range. */
export function rateTake(
  guard: RateGuard,
  state: RateState | undefined,
  amount: number,
  now: Millis,
): RateState {
  if (guard.algorithm === 'gcra') return gcraTake(guard, asGcra(guard, state, now), amount, now)
  if (guard.algorithm === 'sliding') return slidingTake(guard, asSliding(guard, state, now), amount, now)
  const fixed = asFixed(guard, state, now)
  return { startAt: fixed.startAt, used: add(fixed.used, amount) }
}

/**
 * Takes back `amount` out of what was admitted at `takenAt`, as far as it still counts. What counts afterwards is never
 * below zero and never below what it would be had the amount not been admitted in the first place, so that holding much and giving
 * it back late wins nothing. Undefined where nothing counts any more.
 */
export function rateGiveBack(
  guard: RateGuard,
  state: RateState | undefined,
  amount: number,
  takenAt: Millis,
  now: Millis,
): RateState | undefined {
  if (state === undefined) return undefined
  if (guard.algorithm === 'gcra') return gcraGiveBack(asGcra(guard, state, now), amount, takenAt)
  if (guard.algorithm === 'sliding')
    return slidingGiveBack(guard, asSliding(guard, state, now), amount, takenAt, now)
  const fixed = asFixed(guard, state, now)
  const used = windowStart(guard, takenAt) < fixed.startAt ? fixed.used : Math.max(0, fixed.used - amount)
  return used === 0 ? undefined : { startAt: fixed.startAt, used }
}

/** True when nothing counts any more: the state may be deleted, and no later answer differs for it. */
export function rateIsIdle(guard: RateGuard, state: RateState | undefined, now: Millis): boolean {
  return state === undefined || rateView(guard, state, now).used === 0
}

// --- gcra

/** How many falls of a level are remembered. */
const LOWS_MAX = 8
/** The last instant that a date can name, 13 September 275760. */
const LAST_INSTANT = 8_640_000_000_000_000

function gcraView(guard: RateGuard, { level, drained }: GcraState, now: Millis): RateView {
  return {
    used: level,
    available: Math.max(0, guard.capacity - level),
    resetsAt: level === 0 ? null : reachedAt(guard, level, drained, now),
  }
}

function gcraFreeAt(
  guard: RateGuard,
  { level, drained }: GcraState,
  amount: number,
  now: Millis,
): Millis | null {
  const excess = level - (guard.capacity - amount)
  return excess <= 0 ? now : reachedAt(guard, excess, drained, now)
}

/** When `units − drained/perMs` will have drained; null beyond the calendar's end. */
function reachedAt({ limit, perMs }: RateGuard, units: number, drained: number, now: Millis): Millis | null {
  if (limit === 0) return null
  const at = now + drainMs(limit, perMs, units, drained)
  return at <= LAST_INSTANT ? at : null
}

/** `⌈(units·perMs − drained) / limit⌉` */
function drainMs(limit: number, perMs: Millis, units: number, drained: number): Millis {
  const product = units * perMs
  if (product <= Number.MAX_SAFE_INTEGER) return Math.ceil((product - drained) / limit)
  const exact = BigInt(units) * BigInt(perMs) - BigInt(drained)
  return Number((exact + BigInt(limit) - 1n) / BigInt(limit))
}

function gcraTake(guard: RateGuard, state: GcraState, amount: number, now: Millis): GcraState {
  const level = add(state.level, amount)
  const { drained, at } = state
  if (guard.meter.kind === 'requests') return { level, drained, at }
  return { level, drained, at, lows: withLow(state.lows ?? [], now, wholeUnits(state)) }
}

/**
 * Without the amount the level would have run as it did, lower by the amount, but for the times when it would have run dry: it
 * would be lower now by the least of the amount and every level since `takenAt` (the reflection of a queue at zero, Harrison,
 * Brownian Motion and Stochastic Flow Systems, 1985, section 2.2). A level is least just before an admission, so those are
 * remembered.
 */
function gcraGiveBack(state: GcraState, amount: number, takenAt: Millis): GcraState | undefined {
  const { level, drained, at, lows = [] } = state
  const first = lows.findIndex(([lowAt]) => lowAt > takenAt)
  const back = first < 0 ? amount : Math.min(amount, (lows[first] as [Millis, number])[1])
  if (back >= level) return undefined
  if (first < 0) return { ...state, level: level - back }
  return { level: level - back, drained, at, lows: loweredFrom(lows, first, back) }
}

/** The level in whole units, rounded down. */
function wholeUnits({ level, drained }: GcraState): number {
  return drained === 0 ? level : level - 1
}

/**
 * `lows` are `[at, level]`, ascending in both: since `at`, the level has never been lower. A new one replaces all that are not
 * lower. When there are too many, the two that differ least become one, the later time with the lower level: that
 * gives back too little, never too much.
 */
function withLow(lows: readonly [Millis, number][], at: Millis, level: number): [Millis, number][] {
  const kept = lows.filter(([, low]) => low < level)
  if (kept.length === 0 || (kept.at(-1) as [Millis, number])[0] < at) kept.push([at, level])
  if (kept.length > LOWS_MAX) mergeClosest(kept)
  return kept
}

function mergeClosest(lows: [Millis, number][]): void {
  let closest = 0
  let least = Number.POSITIVE_INFINITY
  for (let i = 0; i + 1 < lows.length; i += 1) {
    const difference = lowAt(lows, i + 1) - lowAt(lows, i)
    if (difference < least) {
      least = difference
      closest = i
    }
  }
  const later = lows[closest + 1] as [Millis, number]
  lows.splice(closest, 2, [later[0], lowAt(lows, closest)])
}

function lowAt(lows: readonly [Millis, number][], i: number): number {
  return (lows[i] as [Millis, number])[1]
}

function loweredFrom(lows: readonly [Millis, number][], first: number, by: number): [Millis, number][] {
  const least = lowAt(lows, first) - by
  const earlier = lows.slice(0, first).filter(([, low]) => low < least)
  return [...earlier, ...lows.slice(first).map(([at, low]): [Millis, number] => [at, low - by])]
}

/** The state drained to now, in a form of its own. */
function asGcra(guard: RateGuard, state: RateState | undefined, now: Millis): GcraState {
  if (state === undefined) return { level: 0, drained: 0, at: now }
  if (!('level' in state)) return { level: counted(guard, state, now), drained: 0, at: now }
  return drainedTo(guard, state, now)
}

function drainedTo({ limit, perMs }: RateGuard, state: GcraState, now: Millis): GcraState {
  if (now <= state.at && state.drained < perMs) return state
  const elapsed = Math.max(0, now - state.at)
  const before = state.drained < perMs ? state.drained : 0
  const flow = before + elapsed * limit
  if (flow > Number.MAX_SAFE_INTEGER) return drainedFar(limit, perMs, state, before, elapsed)
  const units = Math.floor(flow / perMs)
  return lowered(state, units, flow - units * perMs, state.at + elapsed)
}

/** Where the product leaves the safe range: a µCU limit after hours of rest. */
function drainedFar(
  limit: number,
  perMs: Millis,
  state: GcraState,
  before: number,
  elapsed: Millis,
): GcraState {
  const flow = BigInt(before) + BigInt(elapsed) * BigInt(limit)
  const units = flow / BigInt(perMs)
  return lowered(state, Number(units), Number(flow % BigInt(perMs)), state.at + elapsed)
}

function lowered(state: GcraState, units: number, drained: number, at: Millis): GcraState {
  if (units >= state.level) return { level: 0, drained: 0, at }
  if (state.lows === undefined) return { level: state.level - units, drained, at }
  return { level: state.level - units, drained, at, lows: state.lows }
}

// --- sliding

/** Above this many admissions a log is merged by sub-windows, and there are as many of those in a period. */
const EXACT_ADMISSIONS = 32

function slidingView(guard: RateGuard, { log }: SlidingState, now: Millis): RateView {
  const used = sum(guard, log, now)
  const last = log.at(-1)
  return {
    used,
    available: Math.max(0, guard.capacity - used),
    resetsAt: used === 0 || last === undefined ? null : last[0] + guard.perMs,
  }
}

function slidingFreeAt(guard: RateGuard, { log }: SlidingState, amount: number, now: Millis): Millis {
  let used = sum(guard, log, now)
  let at = now
  for (const [takenAt, taken] of log) {
    if (used <= guard.capacity - amount) break
    if (takenAt <= now - guard.perMs) continue
    used -= taken
    at = takenAt + guard.perMs
  }
  return at
}

function slidingTake(guard: RateGuard, { log }: SlidingState, amount: number, now: Millis): SlidingState {
  const next = alive(guard, log, now)
  if (amount > 0) append(next, now, amount)
  return { log: next.length > EXACT_ADMISSIONS ? merged(guard, next) : next }
}

function append(log: [Millis, number][], now: Millis, amount: number): void {
  const last = log.at(-1)
  if (last === undefined || last[0] < now) log.push([now, amount])
  else log[log.length - 1] = [last[0], add(last[1], amount)]
}

function merged(guard: RateGuard, log: readonly [Millis, number][]): [Millis, number][] {
  const result: [Millis, number][] = []
  for (const [at, amount] of log) {
    const last = result.at(-1)
    if (last === undefined || subWindow(guard, last[0]) !== subWindow(guard, at)) result.push([at, amount])
    else result[result.length - 1] = [at, add(last[1], amount)]
  }
  return result
}

/** The number of the sub-window that an instant lies in, counted from the epoch. */
function subWindow({ perMs }: RateGuard, at: Millis): number {
  return Math.floor((at * EXACT_ADMISSIONS) / perMs)
}

/**
 * Merged or not, an admission stands in the first item from its time on, in the same sub-window. Once its own time has left
 * the period nothing is given back, since that item may then be another's.
 */
function slidingGiveBack(
  guard: RateGuard,
  { log }: SlidingState,
  amount: number,
  takenAt: Millis,
  now: Millis,
): SlidingState | undefined {
  const next = alive(guard, log, now)
  const found = takenAt > now - guard.perMs ? next.findIndex(([at]) => at >= takenAt) : -1
  const item = next[found]
  if (item !== undefined && subWindow(guard, item[0]) === subWindow(guard, takenAt)) {
    if (item[1] > amount) next[found] = [item[0], item[1] - amount]
    else next.splice(found, 1)
  }
  return next.length === 0 ? undefined : { log: next }
}

function alive({ perMs }: RateGuard, log: readonly [Millis, number][], now: Millis): [Millis, number][] {
  return log.filter(([at]) => at > now - perMs)
}

function sum({ perMs }: RateGuard, log: readonly [Millis, number][], now: Millis): number {
  let total = 0
  for (const [at, amount] of log) if (at > now - perMs) total = add(total, amount)
  return total
}

function asSliding(guard: RateGuard, state: RateState | undefined, now: Millis): SlidingState {
  if (state === undefined) return { log: [] }
  if ('log' in state) return state
  const used = counted(guard, state, now)
  return { log: used === 0 ? [] : [[now, used]] }
}

// --- fixed

function fixedView(guard: RateGuard, state: FixedState): RateView {
  const { used } = state
  return {
    used,
    available: Math.max(0, guard.capacity - used),
    resetsAt: used === 0 ? null : fixedEnd(guard, state),
  }
}

function fixedEnd(guard: RateGuard, { startAt }: FixedState): Millis {
  return windowStart(guard, startAt) + guard.perMs
}

function windowStart({ perMs }: RateGuard, at: Millis): Millis {
  return Math.floor(at / perMs) * perMs
}

/** The state of the window that now lies in; a start inside it, left by a shorter period, counts in it. */
function asFixed(guard: RateGuard, state: RateState | undefined, now: Millis): FixedState {
  const startAt = windowStart(guard, now)
  if (state === undefined) return { startAt, used: 0 }
  if ('startAt' in state && state.startAt > startAt)
    return { startAt: windowStart(guard, state.startAt), used: state.used }
  return { startAt, used: counted(guard, state, now) }
}

/** What a state of any algorithm counts now, under the guard's limit and period. */
function counted(guard: RateGuard, state: RateState, now: Millis): number {
  if ('level' in state) return drainedTo(guard, state, now).level
  if ('log' in state) return sum(guard, state.log, now)
  return state.startAt >= windowStart(guard, now) ? state.used : 0
}
