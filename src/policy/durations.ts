import type { CalendarUnit, Weekday, WindowRule } from '../kernel/plan.ts'
import type { Millis } from '../units.ts'
import { type Complain, quote } from './complaints.ts'

const UNIT_MS: Readonly<Record<string, Millis>> = {
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
}
/** Windows and waits longer than this are surely a mistake: 400 days. */
export const MAX_DURATION_MS: Millis = 400 * 86_400_000

/** `30s`, `5m`, `5h`, `7d`, `2w` in milliseconds; a day has 24 hours. `undefined` for anything else. `0s` is zero. */
export function parseDuration(text: string): Millis | undefined {
  const match = /^(0|[1-9][0-9]{0,8})([smhdw])$/.exec(text)
  if (match === null) return undefined
  return Number(match[1]) * (UNIT_MS[match[2] ?? ''] ?? 0)
}

/** The same length in the largest unit that tells it exactly: 604,800,000 → `7d`, 18,000,000 → `5h`. */
export function formatDuration(ms: Millis): string {
  for (const unit of ['d', 'h', 'm', 's']) {
    const length = UNIT_MS[unit] ?? 1
    if (ms !== 0 && ms % length === 0) return `${ms / length}${unit}`
  }
  return ms === 0 ? '0s' : `${ms}ms`
}

/** Reads a length whose form is already right, and complains where it is out of bounds. */
export function boundedDuration(
  text: string,
  path: string,
  complain: Complain,
  maxMs: Millis = MAX_DURATION_MS,
): Millis {
  const ms = parseDuration(text) ?? 0
  if (ms > maxMs) complain(path, `must be at most ${formatDuration(maxMs)}, not ${text}`)
  return Math.min(ms, maxMs)
}

const WEEKDAYS = ['monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday', 'sunday']
const UNITS: readonly string[] = ['hour', 'day', 'week', 'month'] satisfies CalendarUnit[]

/** ISO 8601: Monday is 1. */
export function weekday(name: string | undefined): Weekday {
  const index = name === undefined ? 0 : WEEKDAYS.indexOf(name)
  return (Math.max(index, 0) + 1) as Weekday
}

export interface WindowText {
  readonly per: string
  readonly anchor?: string | undefined
  readonly weekStart?: string | undefined
}
export interface WindowDefaults {
  /** Allowances open at first use; everything else follows the account's anchor or the calendar. */
  readonly kind: 'allowance' | 'account' | 'recurrence'
  readonly weekStart: Weekday
  /** What `per` is called where the window is written. */
  readonly perKey?: string
}

/**
 * How windows follow each other, from `per`, `anchor` and `week_start` as written. Without an anchor a calendar unit
 * follows the calendar; a fixed length opens at first use in an allowance and counts from the account's anchor elsewhere.
 */
export function windowRule(
  text: WindowText,
  defaults: WindowDefaults,
  path: string,
  complain: Complain,
): WindowRule {
  const unit = UNITS.includes(text.per) ? (text.per as CalendarUnit) : undefined
  const perPath = `${path}/${defaults.perKey ?? 'per'}`
  const weekStart = text.weekStart === undefined ? defaults.weekStart : weekday(text.weekStart)
  if (text.weekStart !== undefined && (unit !== 'week' || text.anchor === 'account')) {
    complain(
      `${path}/week_start`,
      `has a meaning only for calendar weeks: write \`${defaults.perKey ?? 'per'}: week\`, or leave it out`,
    )
  }
  if (unit === undefined)
    return fixedRule(text, boundedDuration(text.per, perPath, complain), defaults, path, complain)
  switch (text.anchor) {
    case 'account':
      return { anchor: 'account', period: { unit } }
    case 'calendar':
      return { anchor: 'calendar', unit, weekStart }
    case 'first_use':
      complain(
        perPath,
        `must be a length such as \`7d\` with \`anchor: first_use\`, not ${quote(text.per)}, which follows the calendar`,
      )
      return { anchor: 'calendar', unit, weekStart }
    default:
      return { anchor: defaults.kind === 'allowance' ? 'calendar' : 'calendar_or_account', unit, weekStart }
  }
}

function fixedRule(
  text: WindowText,
  lengthMs: Millis,
  defaults: WindowDefaults,
  path: string,
  complain: Complain,
): WindowRule {
  if (text.anchor === 'calendar') {
    const per = defaults.perKey ?? 'per'
    complain(
      `${path}/${per}`,
      `must be one of \`hour\`, \`day\`, \`week\`, \`month\` with \`anchor: calendar\`, not ${quote(text.per)}`,
    )
  }
  if (text.anchor === 'first_use' && defaults.kind === 'recurrence') {
    complain(`${path}/anchor`, 'must be `calendar` or `account`: what recurs is not waiting for a first use')
  }
  const opensAtUse = text.anchor === undefined ? defaults.kind === 'allowance' : text.anchor === 'first_use'
  return opensAtUse ? { anchor: 'first_use', lengthMs } : { anchor: 'account', period: { lengthMs } }
}
