/**
 * When a window starts and ends. Windows of one rule tile the time line: each instant lies in exactly one `[start, end)`,
 * whatever the zone does to its clocks.
 */

import type { Millis } from '../units.ts'
import type { WindowState } from './cells.ts'
import type { CalendarUnit, Weekday, WindowRule } from './plan.ts'

/** What windows are counted in: the account's IANA zone, and the instant that its own periods start from. */
export interface Frame {
  readonly zone: string
  readonly anchorAt: Millis
  /** Whether the anchor was given: a `calendar_or_account` rule counts from it only then. */
  readonly anchored: boolean
  /** The terms that windows open under have stood since this instant. */
  readonly terms?: { readonly sinceAt: Millis }
}

/** `[startAt, endAt)`. */
export interface Bounds {
  readonly startAt: Millis
  readonly endAt: Millis
}

/**
 * The window of a rule that `at` lies in; never empty.
 *
 * - `first_use`: the one that would open at `at`.
 * - `calendar`: the local hour, day, week or month. A boundary is the first instant at which the local clock reads it, or,
 *   where the clock jumps over it, the first instant after the jump. A day without its midnight starts late, and a date that
 *   the zone skipped has no window. A midnight that comes twice counts once, the first time, so that a day stays one window.
 *   An hour is cut each time the clock reads a full hour: the two hours 02:00 at the end of daylight saving are two windows,
 *   since each is an hour of real time and nobody who spent the first should wait through the second as well; the half hour
 *   that Lord Howe repeats begins at no full hour and lengthens its window to 90 minutes.
 * - `account`: from the anchor instant, `anchor + n·unit` in the local calendar for each n, negative too. Counting from the
 *   anchor and never from the last boundary keeps 31 Jan → 28 Feb → 31 Mar. Hours, and a fixed length, are real time.
 */
export function boundsAt(rule: WindowRule, at: Millis, frame: Frame): Bounds {
  switch (rule.anchor) {
    case 'first_use':
      return { startAt: at, endAt: at + rule.lengthMs }
    case 'calendar':
      return calendarBounds(rule.unit, rule.weekStart, at, frame.zone)
    case 'calendar_or_account':
      if (frame.anchored) return accountBounds(rule.unit, at, frame)
      return calendarBounds(rule.unit, rule.weekStart, at, frame.zone)
    case 'account':
      if ('lengthMs' in rule.period) return fixedBounds(rule.period.lengthMs, at, frame.anchorAt)
      return accountBounds(rule.period.unit, at, frame)
  }
}

/**
 * The window to count in at `now`. A stored one that has not ended stands as it was opened, even where the rule, the zone
 * or the anchor has changed since: a new length begins when the present window ends. Else a fresh one, with nothing used
 * or held; where the rule has changed it may be cut short at its start, because it never reaches back into the window before,
 * nor, since that one may be forgotten, behind a change of terms: no instant is counted twice, and no two instances of one
 * window share their start.
 */
export function windowAt(
  state: WindowState | undefined,
  rule: WindowRule,
  now: Millis,
  frame: Frame,
): WindowState {
  if (state === undefined) return opened(boundsAt(rule, now, frame), Math.min(now, frame.terms?.sinceAt ?? 0))
  if (now < state.endAt && now >= state.startAt) return state
  return opened(boundsAt(rule, now, frame), state.endAt <= now ? state.endAt : 0)
}

function opened(bounds: Bounds, notBefore: Millis): WindowState {
  return { startAt: Math.max(bounds.startAt, notBefore), endAt: bounds.endAt, used: 0, held: 0 }
}

/**
 * An IANA zone name as the time zone database spells it (`europe/berlin` → `Europe/Berlin`), or undefined. Offsets such as
 * `+05:30` are refused: they know no daylight saving, and who writes one usually means a place.
 */
export function isTimeZone(name: string): string | undefined {
  if (!/^[A-Za-z][A-Za-z0-9_+\-/]{0,63}$/.test(name)) return undefined
  try {
    return new Temporal.ZonedDateTime(0n, name).timeZoneId
  } catch {
    return undefined
  }
}

const HOUR_MS = 3_600_000
const DAY_MS = 24 * HOUR_MS

function fixedBounds(lengthMs: Millis, at: Millis, anchorAt: Millis): Bounds {
  const startAt = anchorAt + Math.floor((at - anchorAt) / lengthMs) * lengthMs
  return { startAt, endAt: startAt + lengthMs }
}

function calendarBounds(unit: CalendarUnit, weekStart: Weekday, at: Millis, zone: string): Bounds {
  const { calendar } = remembered(zone)
  const slot = unit === 'week' ? weekStart : SLOT[unit]
  calendar[slot] ??= []
  const known = recalled(calendar[slot], at)
  if (known !== undefined) return known
  const bounds = unit === 'hour' ? hourBounds(at, zone) : gridBounds(calendarGrid(unit, weekStart, zone), at)
  return keep(calendar[slot], bounds)
}

function accountBounds(unit: CalendarUnit, at: Millis, frame: Frame): Bounds {
  if (unit === 'hour') return fixedBounds(HOUR_MS, at, frame.anchorAt)
  const known = remembered(frame.zone).account[unit]
  const kept = known.get(frame.anchorAt)
  const last = kept === undefined ? undefined : recalled(kept, at)
  if (last !== undefined) return last
  const bounds = gridBounds(accountGrid(unit, frame), at)
  makeRoom()
  if (kept === undefined) known.set(frame.anchorAt, [bounds])
  else keep(kept, bounds)
  return bounds
}

/** Boundaries at `origin + n·unit` of a zone's local calendar. */
interface Grid {
  readonly zone: string
  readonly unit: 'day' | 'week' | 'month'
  readonly origin: Temporal.PlainDateTime
  /** The instant of boundary 0, where it is one of its own: an anchor in an hour that comes twice may be the second. */
  readonly originAt: Millis | undefined
}

/** 1 January 1970 was a Thursday, 4 by ISO 8601. */
const EPOCH_WEEKDAY = 4
const EPOCH = new Temporal.PlainDateTime(1970, 1, 1)

function calendarGrid(unit: 'day' | 'week' | 'month', weekStart: Weekday, zone: string): Grid {
  const origin = unit === 'week' ? EPOCH.add({ days: weekStart - EPOCH_WEEKDAY }) : EPOCH
  return { zone, unit, origin, originAt: undefined }
}

function accountGrid(unit: 'day' | 'week' | 'month', frame: Frame): Grid {
  const origin = zoned(frame.anchorAt, frame.zone).toPlainDateTime()
  return { zone: frame.zone, unit, origin, originAt: frame.anchorAt }
}

/**
 * Guesses n from the local clock, then looks at the instants themselves: St. John's set its clock back from 00:01 to 23:01
 * of the day before, so that an instant may read an earlier date than the window it lies in.
 */
function gridBounds(grid: Grid, at: Millis): Bounds {
  let n = guess(grid, zoned(at, grid.zone).toPlainDateTime())
  let startAt = boundary(grid, n)
  while (startAt > at) startAt = boundary(grid, --n)
  let endAt = boundary(grid, n + 1)
  while (endAt <= at) {
    startAt = endAt
    endAt = boundary(grid, ++n + 1)
  }
  return { startAt, endAt }
}

function guess({ unit, origin }: Grid, local: Temporal.PlainDateTime): number {
  if (unit === 'month') return (local.year - origin.year) * 12 + local.month - origin.month
  const days = Math.floor((utc(local) - utc(origin)) / DAY_MS)
  return unit === 'day' ? days : Math.floor(days / 7)
}

function utc(local: Temporal.PlainDateTime): Millis {
  return local.toZonedDateTime('UTC').epochMilliseconds
}

function boundary({ zone, unit, origin, originAt }: Grid, n: number): Millis {
  if (n === 0 && originAt !== undefined) return originAt
  if (unit === 'month') return firstInstant(origin.add({ months: n }), zone)
  return firstInstant(origin.add({ days: unit === 'week' ? 7 * n : n }), zone)
}

/** The first instant at which the zone's clock reads `local`, or the first after the jump that skips it. */
function firstInstant(local: Temporal.PlainDateTime, zone: string): Millis {
  // In a gap `earlier` answers an instant before it, by the length of the gap; `compatible` would answer one as far behind it.
  const found = local.toZonedDateTime(zone, { disambiguation: 'earlier' })
  if (found.toPlainDateTime().equals(local)) return found.epochMilliseconds
  const jump = found.getTimeZoneTransition('next') ?? found
  return jump.epochMilliseconds
}

function hourBounds(at: Millis, zone: string): Bounds {
  return { startAt: hourStart(at, zone), endAt: hourEnd(at, zone) }
}

/** The last instant up to `at` at which the local clock read a full hour or jumped over one. */
function hourStart(at: Millis, zone: string): Millis {
  const offset = offsetAt(at, zone)
  const full = floorHour(at + offset) - offset
  const jumpAt = zoned(at + 1, zone).getTimeZoneTransition('previous')?.epochMilliseconds
  if (jumpAt === undefined || jumpAt <= full) return full
  return cutsHour(jumpAt, zone) ? jumpAt : hourStart(jumpAt - 1, zone)
}

/** The first instant after `at` at which the local clock reads a full hour or jumps over one. */
function hourEnd(at: Millis, zone: string): Millis {
  const offset = offsetAt(at, zone)
  const full = floorHour(at + offset) + HOUR_MS - offset
  const jumpAt = zoned(at, zone).getTimeZoneTransition('next')?.epochMilliseconds
  if (jumpAt === undefined || jumpAt > full) return full
  return cutsHour(jumpAt, zone) ? jumpAt : hourEnd(jumpAt, zone)
}

/** Whether the clock reads a full hour right after the jump, or has left one out. */
function cutsHour(jumpAt: Millis, zone: string): boolean {
  const before = jumpAt + offsetAt(jumpAt - 1, zone)
  const after = jumpAt + offsetAt(jumpAt, zone)
  return after > before ? floorHour(after) >= before : floorHour(after) === after
}

function floorHour(ms: Millis): Millis {
  return Math.floor(ms / HOUR_MS) * HOUR_MS
}

function offsetAt(at: Millis, zone: string): Millis {
  return zoned(at, zone).offsetNanoseconds / 1_000_000
}

function zoned(at: Millis, zone: string): Temporal.ZonedDateTime {
  return Temporal.Instant.fromEpochMilliseconds(at).toZonedDateTimeISO(zone)
}

/**
 * The last intervals asked for, by zone and unit, and by anchor for accounts that have one. Only a memory of pure results:
 * a window computed costs about 10 µs, a remembered one 0.02 µs, and nearly every call asks for the present window. A
 * refusal asks for every day of a daily grant up to the end of the month, and the next refusal for the same ones: with one
 * interval kept it cost 2 ms, 30 times as much as without that grant.
 */
interface Remembered {
  /** Weeks by their first day, 1 to 7; the other units as in `SLOT`. */
  readonly calendar: (Bounds[] | undefined)[]
  readonly account: Readonly<Record<'day' | 'week' | 'month', Map<Millis, Bounds[]>>>
}
const SLOT = { hour: 0, day: 8, month: 9 } as const
/** About 2 MB at the most. When it is full all is forgotten: that costs no more than not remembering. */
const MEMORY_MAX = 20_000
const memory = new Map<string, Remembered>()
let memorySize = 0

function remembered(zone: string): Remembered {
  const known = memory.get(zone)
  if (known !== undefined) return known
  const fresh: Remembered = {
    calendar: Array.from({ length: 10 }, () => undefined),
    account: { day: new Map(), week: new Map(), month: new Map() },
  }
  makeRoom()
  memory.set(zone, fresh)
  return fresh
}

/** The days of a month and some more. */
const KEPT = 40

function recalled(kept: readonly Bounds[], at: Millis): Bounds | undefined {
  for (let place = kept.length - 1; place >= 0; place--) {
    const bounds = kept[place] as Bounds
    if (at >= bounds.startAt && at < bounds.endAt) return bounds
  }
  return undefined
}

function keep(kept: Bounds[], bounds: Bounds): Bounds {
  kept.push(bounds)
  if (kept.length > KEPT) kept.shift()
  return bounds
}

function makeRoom(): void {
  memorySize += 1
  if (memorySize <= MEMORY_MAX) return
  memory.clear()
  memorySize = 1
}
