/**
 * The shapes that cross HTTP, as JSON schemas: one schema gives validation, serialisation, types and OpenAPI. They say
 * what `wire.ts` says (a test holds the two together, both ways). What an amount or a name *means* is the engine's to
 * check; here stands only what can be told from the shape. A description says what is right: refusals quote it.
 */
import Type, { type Static, type TSchema } from 'typebox'
import type * as wire from '../../wire.ts'

/** A schema with a name, referred to by `$ref` and told once in the contract. */
export const named = <T extends Record<string, TSchema>>($id: string, properties: T, description?: string) =>
  Type.Object(properties, {
    $id,
    additionalProperties: false,
    ...(description === undefined ? {} : { description }),
  })

/** Refers to a named schema, and keeps its type. */
export const ref = <T extends TSchema>(schema: T) =>
  Type.Unsafe<Static<T>>(Type.Ref(`${(schema as { $id?: string }).$id}#`))

export const list = <T extends TSchema>(item: T) => Type.Immutable(Type.Array(item))
export const optional = Type.Optional

/** Ids: what the caller chooses and Sluice recognises. */
export const ID_PATTERN = '^[\\x21-\\x7e]{1,128}$'
export const id = (what: string) =>
  Type.String({
    pattern: ID_PATTERN,
    description: `${what}: 1 to 128 printable ASCII characters without space`,
  })
export const text = (description: string) =>
  Type.String({ maxLength: 256, description: `${description}: at most 256 characters` })
/** The last instant that a calendar can name: ECMA-262, time values. */
const LATEST = 8_640_000_000_000_000
export const instant = (what: string) =>
  Type.Integer({
    minimum: 0,
    maximum: LATEST,
    description: `${what}: integer milliseconds since the epoch`,
  })
export const duration = (what: string) =>
  Type.Integer({ minimum: 0, maximum: LATEST, description: `${what}: integer milliseconds` })

export const AMOUNT = 'a decimal with at most six places, as a string such as "12.5" or an exact number'
export const amountIn = (what: string) =>
  Type.Unsafe<wire.AmountIn>({ type: ['string', 'number'], description: `${what}: ${AMOUNT}` })
/** An amount on the way out: always a decimal string. */
export const amount = (what?: string) => Type.String(what === undefined ? {} : { description: what })
export const map = <T>(values: object, description: string, maxProperties: number) =>
  Type.Unsafe<Readonly<Record<string, T>>>({
    type: 'object',
    additionalProperties: values,
    maxProperties,
    description,
  })

export const SubjectIn = map<string>(
  { type: 'string' },
  'Who acts: dimension to value, at most 8, such as {"user":"u1"}',
  8,
)
export const AttributesIn = map<string | number | boolean>(
  { type: ['string', 'number', 'boolean'] },
  'What the rate card may ask about: name to text, number or boolean, at most 16',
  16,
)
export const quantitiesIn = (what: string) =>
  map<wire.AmountIn>(
    { type: ['string', 'number'], description: `A quantity is not negative: ${AMOUNT}` },
    `${what}: name to amount, disjoint, at most 32, such as {"input_tokens":900}`,
    32,
  )
export const texts = (description: string) =>
  Type.Unsafe<Readonly<Record<string, string>>>({
    type: 'object',
    additionalProperties: { type: 'string' },
    description,
  })
export const Quantities = texts('Name of the quantity to decimal string')
export const nullableInstant = (what: string) =>
  Type.Unsafe<number | null>({ type: ['integer', 'null'], description: what })

/** The lists of `wire.ts` that calls and answers share. */
export const STATUSES = ['active', 'suspended', 'closed'] as const
export const ROLES = ['admin', 'meter', 'read', 'call'] as const
export const GRANT_KINDS = ['free', 'promo', 'plan', 'enterprise', 'purchased', 'adjustment'] as const
export const ENTRY_KINDS = ['usage', 'charge', 'balance', 'decision', 'change'] as const
export const oneOf = <const T extends readonly string[]>(values: T) =>
  Type.Unsafe<T[number]>({ type: 'string', enum: values, description: `One of ${values.join(', ')}` })
export const Status = oneOf(STATUSES)
export const Kind = oneOf(GRANT_KINDS)
export const RoleSchema = oneOf(ROLES)
