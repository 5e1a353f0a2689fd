/**
 * Windows in plain words, for the auditor: no table, no arithmetic of offsets, only the calendar's own functions. It knows
 * zones whose clocks jump by whole hours; the kernel's tests know the odd ones.
 */
import type { Millis } from '../units.ts'

export interface WrittenWindow {
  readonly per: string
  readonly anchor?: string
  readonly week_start?: string
}
export interface Frame {
  readonly zone: string
  readonly anchorAt: Millis
  /** Whether whoever made the account named an anchor. */
  readonly anchored: boolean
}
export interface Span {
  readonly startAt: Millis
  readonly endAt: Millis
}

const UNIT_MS: Readonly<Record<string, number>> = {
  s: 1_000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
}
const DAYS = ['monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday', 'sunday']

/** `5h` → 18,000,000; undefined for `day` and the like. */
export function lengthOf(per: string): Millis | undefined {
  const match = /^(\d+)([smhdw])$/.exec(per)
  return match === null ? undefined : Number(match[1]) * (UNIT_MS[match[2] as string] as number)
}

/** An allowance opens at first use or follows the calendar; everything else follows the anchor where there is one. */
export function anchorOf(written: WrittenWindow, isAllowance: boolean, frame: Frame): string {
  if (written.anchor !== undefined) return written.anchor
  if (lengthOf(written.per) !== undefined) return isAllowance ? 'first_use' : 'account'
  return !isAllowance && frame.anchored ? 'account' : 'calendar'
}

/** The window that `at` lies in, or that would open at `at`. */
export function spanAt(written: WrittenWindow, isAllowance: boolean, at: Millis, frame: Frame): Span {
  const length = lengthOf(written.per)
  const anchor = anchorOf(written, isAllowance, frame)
  if (anchor === 'first_use') return { startAt: at, endAt: at + (length as number) }
  if (anchor === 'calendar') return calendarSpan(written, at, frame.zone)
  const fixed = length ?? (written.per === 'hour' ? 3_600_000 : undefined)
  if (fixed !== undefined) {
    const periods = Math.floor((at - frame.anchorAt) / fixed)
    return { startAt: frame.anchorAt + periods * fixed, endAt: frame.anchorAt + (periods + 1) * fixed }
  }
  return anchoredSpan(`${written.per}s`, at, frame)
}

function calendarSpan({ per, week_start }: WrittenWindow, at: Millis, zone: string): Span {
  const local = Temporal.Instant.fromEpochMilliseconds(at).toZonedDateTimeISO(zone)
  if (per === 'hour') {
    const startAt = at - local.minute * 60_000 - local.second * 1_000 - local.millisecond
    return { startAt, endAt: startAt + 3_600_000 }
  }
  const day = local.toPlainDate()
  const first =
    per === 'month'
      ? day.with({ day: 1 })
      : per === 'week'
        ? day.subtract({ days: (day.dayOfWeek - 1 - DAYS.indexOf(week_start ?? 'monday') + 7) % 7 })
        : day
  return { startAt: startOf(first, zone), endAt: startOf(first.add({ [`${per}s`]: 1 }), zone) }
}

const startOf = (day: Temporal.PlainDate, zone: string): Millis => day.toZonedDateTime(zone).epochMilliseconds

/** Only where to begin to look. */
const ABOUT_MS: Readonly<Record<string, Millis>> = {
  days: 86_400_000,
  weeks: 604_800_000,
  months: 2_629_800_000,
}

function anchoredSpan(units: string, at: Millis, { zone, anchorAt }: Frame): Span {
  const anchor = Temporal.Instant.fromEpochMilliseconds(anchorAt).toZonedDateTimeISO(zone).toPlainDateTime()
  const boundary = (n: number): Millis => (n === 0 ? anchorAt : instantOf(anchor.add({ [units]: n }), zone))
  let n = Math.floor((at - anchorAt) / (ABOUT_MS[units] as number))
  while (boundary(n) > at) n--
  while (boundary(n + 1) <= at) n++
  return { startAt: boundary(n), endAt: boundary(n + 1) }
}

/** A local time that does not exist is the first instant after it; one that comes twice is the first. */
function instantOf(local: Temporal.PlainDateTime, zone: string): Millis {
  const earlier = local.toZonedDateTime(zone, { disambiguation: 'earlier' })
  if (earlier.toPlainDateTime().equals(local)) return earlier.epochMilliseconds
  return (earlier.getTimeZoneTransition('next') as Temporal.ZonedDateTime).epochMilliseconds
}
