/** What the fields of the gateway's configuration are made of. */
import { Type } from 'typebox'
import { SluiceError } from '../errors.ts'
import { parseDuration } from '../policy/durations.ts'
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

/** A length of the policy's form, or in `ms`, which has been checked to be one. */
export function millisOf(text: string): Millis {
  const ms = text.endsWith('ms') ? Number(text.slice(0, -2)) : (parseDuration(text) as Millis)
  // No timer of the platform runs longer; three weeks are as good as for ever.
  return Math.min(ms, 2 ** 31 - 1)
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
