/** Values as people type them on a command line, read exactly or refused with what would be right. */
import { InvalidArgumentError } from 'commander'
import type { Millis } from '../units.ts'

const UNIT_MS: Readonly<Record<string, Millis>> = {
  ms: 1,
  s: 1000,
  m: 60_000,
  h: 3_600_000,
  d: 86_400_000,
  w: 604_800_000,
}

/** `250ms`, `30s`, `5m`, `5h`, `7d`, `2w`. */
export function duration(text: string): Millis {
  const match = /^(0|[1-9][0-9]{0,8})(ms|[smhdw])$/.exec(text)
  if (match === null) throw new InvalidArgumentError('It takes a duration such as 30s, 5m, 5h or 7d.')
  return Number(match[1]) * (UNIT_MS[match[2] ?? ''] ?? 0)
}

/** `2026-12-31`, `2026-12-31T18:00Z`, `+30d` from now, or milliseconds since the epoch. A date alone begins in UTC. */
export function instant(text: string): Millis {
  if (/^\+\d/.test(text)) return Date.now() + duration(text.slice(1))
  if (/^\d{12,15}$/.test(text)) return Number(text)
  const date = /^\d{4}-\d\d-\d\d$/.test(text)
  const zoned = /^\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d(\.\d{1,3})?)?(Z|[+-]\d\d:\d\d)$/.test(text)
  const at = date || zoned ? Date.parse(text) : Number.NaN
  if (Number.isNaN(at)) {
    throw new InvalidArgumentError('It takes an instant such as 2026-12-31, 2026-12-31T18:00Z or +30d.')
  }
  return at
}

/** A whole number between two bounds. */
export function whole(least: number, most: number): (text: string) => number {
  return (text) => {
    const value = /^\d{1,15}$/.test(text) ? Number(text) : Number.NaN
    if (value >= least && value <= most) return value
    throw new InvalidArgumentError(`It takes a whole number from ${least} to ${most}.`)
  }
}

/** `name=value`, given as often as needed. An empty value stays empty. */
export function pairs(text: string, before: Readonly<Record<string, string>> = {}): Record<string, string> {
  const at = text.indexOf('=')
  if (at < 1) throw new InvalidArgumentError('It takes NAME=VALUE.')
  return { ...before, [text.slice(0, at)]: text.slice(at + 1) }
}

/** Given as often as needed, or once with commas between. */
export function words(text: string, before: readonly string[] = []): readonly string[] {
  return [...before, ...text.split(',').filter((word) => word !== '')]
}
