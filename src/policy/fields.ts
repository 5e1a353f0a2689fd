/**
 * The leaves of the policy's schema: names, amounts, prices and lengths, each with the pattern that editors check and the
 * sentence that a complaint ends with.
 *
 * Two kinds of keyword are Sluice's own and leave with the export: `expects` and `expectsKey` end the sentence "must be …".
 */
import { type TProperties, type TSchema, Type } from 'typebox'
import { MAX_CONCURRENCY } from '../kernel/plan.ts'

type Unit = 's' | 'm' | 'h' | 'd' | 'w'
/** `30s`, `5m`, `5h`, `7d`, `2w`. */
export type DurationText = `${number}${Unit}`
export type PeriodText = DurationText | 'hour' | 'day' | 'week' | 'month'
export const BOUNDS = {
  features: 1000,
  plans: 250,
  lines: 5000,
  conditions: 16,
  quantities: 32,
  guards: 64,
  sources: 16,
  windows: 8,
  grants: 32,
  dimensions: 8,
  thresholds: 16,
  usageDimensions: 8,
  concurrency: MAX_CONCURRENCY,
  subjects: 1_000_000,
} as const

/** Keys of state that are no guard's or allowance's, and the one lower-case name that every object has. */
const RESERVED = ['constructor', 'overage', 'absorb']
/** Quantities and attributes index plain objects, which have these already. */
const INHERITED = Object.getOwnPropertyNames(Object.prototype).sort().join('|')

// A name of digits alone would be an index of the object that state is kept in.
export const NAME = '^(?!(?:constructor|[0-9]+)$)[a-z0-9][a-z0-9_-]{0,63}$'
export const STATE_NAME = `^(?!(?:${RESERVED.join('|')}|[0-9]+)$)[a-z0-9][a-z0-9_-]{0,63}$`
export const DIMENSION = '^(?!constructor$)[a-z][a-z0-9_-]{0,63}$'
export const FEATURE = '^(?!constructor$)[a-z][a-z0-9_.-]{0,63}$'
const FEATURE_PATTERN = '^(?:\\*|[a-z][a-z0-9_.-]{0,63}\\*?)$'
export const USAGE_DIMENSION = '^(?:feature|endpoint|(?:subject|attributes)\\.[!-~]{1,128})$'
export const ID = `^(?!(?:${INHERITED})$)[!-~]{1,128}$`
export const DURATION = '[1-9][0-9]{0,8}[smhdw]'

export const EXPECTS_NAME =
  'a name of lower-case letters, digits, `-` and `_`, not of digits alone, at most 64 long'
export const EXPECTS_STATE_NAME = `${EXPECTS_NAME}, and none of ${RESERVED.map((name) => `\`${name}\``).join(', ')}`
export const EXPECTS_DIMENSION =
  'a name of lower-case letters, digits, `-` and `_`, beginning with a letter, at most 64 long'
export const EXPECTS_FEATURE =
  'a name of lower-case letters, digits, `.`, `-` and `_`, beginning with a letter, at most 64 long'
export const EXPECTS_USAGE_DIMENSION = '`feature`, `endpoint`, `subject.<dimension>` or `attributes.<name>`'
export const EXPECTS_ID =
  '1 to 128 printable ASCII characters without space, and no name that every object has'

export function text<T extends string = string>(pattern: string, expects: string, description: string) {
  return Type.Unsafe<T>(Type.String({ pattern, expects, description }))
}
export function strict<P extends TProperties>(properties: P, description: string) {
  return Type.Object(properties, { additionalProperties: false, description })
}
export function record<T extends TSchema>(pattern: string, value: T, expectsKey: string, rest: object) {
  return Type.Record(Type.String({ pattern }), value, { additionalProperties: false, expectsKey, ...rest })
}
export function list<T extends TSchema>(items: T, maxItems: number, description: string, minItems = 1) {
  return Type.Array(items, { minItems, maxItems, description })
}
export function oneOf<const T extends string>(values: readonly T[], description: string) {
  const expects = `one of ${values.map((value) => `\`${value}\``).join(', ')}`
  return Type.Unsafe<T>(Type.Enum([...values], { expects, description }))
}
export const optional = Type.Optional

/** A decimal string, or a JSON number that is exact. */
function decimal(places: number, expects: string, description: string) {
  const pattern = `^(?:0|[1-9][0-9]{0,9})(?:\\.[0-9]{1,${places}})?$`
  return Type.Union([Type.String({ pattern }), Type.Number({ minimum: 0 })], { expects, description })
}
export const amount = (description: string) =>
  decimal(6, 'an amount such as "12.5": not negative, at most six decimals', description)
export const price = (description: string) =>
  decimal(12, 'a price such as 43.75: not negative, at most twelve decimals', description)
export const duration = (description: string) =>
  text<DurationText>(`^${DURATION}$`, 'a length such as `30s`, `5m`, `5h`, `7d` or `2w`', description)
export const period = (description: string) =>
  text<PeriodText>(
    `^(?:${DURATION}|hour|day|week|month)$`,
    'a length such as `30s`, `5h` or `7d`, or one of `hour`, `day`, `week`, `month`',
    description,
  )
export const stateName = (description: string) => text(STATE_NAME, EXPECTS_STATE_NAME, description)
export const dimension = (description: string) => optional(text(DIMENSION, EXPECTS_DIMENSION, description))
export const weekStart = (description: string) =>
  optional(oneOf(['monday', 'tuesday', 'wednesday', 'thursday', 'friday', 'saturday', 'sunday'], description))
export const anchor = (description: string) =>
  optional(oneOf(['first_use', 'calendar', 'account'], description))
export const featureList = (description: string) =>
  optional(
    list(
      text(FEATURE_PATTERN, 'the name of a feature, or its beginning and `*`', 'A feature, or a pattern.'),
      256,
      description,
    ),
  )

export const ANCHOR =
  'Where windows begin: `first_use`, `calendar` (the account’s zone) or `account` (its anchor instant).'
export const WEEK = 'The first day of a calendar week; Monday where it is left out.'
export const windowed = (whatPer: string) => ({
  per: period(whatPer),
  anchor: anchor(ANCHOR),
  week_start: weekStart(WEEK),
})

export const quantities = <T extends TSchema>(value: T, description: string) =>
  record(ID, value, EXPECTS_ID, { description, minProperties: 1, maxProperties: BOUNDS.quantities })
