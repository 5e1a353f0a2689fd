/** What the fields of the gateway's configuration are made of. */
import { Type } from 'typebox'
import { SluiceError } from '../errors.ts'
import type { Millis } from '../units.ts'

export const NAME = '^[a-z][a-z0-9_-]{0,63}$'
export const WORD = '^[\\x21-\\x7e]{1,128}$'
const DURATION = '^(0|[1-9][0-9]{0,6})(ms|s|m|h)$'
export const strict = { additionalProperties: false } as const
export const duration = (what: string) =>
  Type.Optional(Type.String({ pattern: DURATION, description: `${what}: a length such as 30s or 500ms` }))
export const whole = (what: string, minimum: number, maximum: number) =>
  Type.Optional(
    Type.Integer({ minimum, maximum, description: `${what}: a whole number from ${minimum} to ${maximum}` }),
  )

const UNITS: Readonly<Record<string, number>> = { ms: 1, s: 1_000, m: 60_000, h: 3_600_000 }
export function millisOf(text: string): Millis {
  const [, count, unit] = /^(\d+)(\w+)$/.exec(text) ?? []
  // No timer of the platform runs longer; three weeks are as good as for ever.
  return Math.min(Number(count) * (UNITS[unit as string] as number), 2 ** 31 - 1)
}

/** `*` stands for anything, line ends too: a rule must not be escaped by one. */
export function patternOf(text: string): RegExp {
  return new RegExp(`^${text.split('*').map(RegExp.escape).join('.*')}$`, 's')
}

export function wrong(path: string, message: string, remedy: string): SluiceError {
  return new SluiceError('invalid', `the gateway's configuration: ${path || 'the document'}: ${message}`, {
    path,
    remedy,
  })
}
