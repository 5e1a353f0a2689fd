/**
 * Query strings, read exactly: every value is text of a stated form, comes at most once, and nothing is guessed. A
 * value that does not have its form is refused by the schema, with the description as remedy.
 */
import Type, { type Static, type TSchema } from 'typebox'
import type { PageQuery } from '../wire.ts'
import { ENTRY_KINDS, ID_PATTERN } from './schemas/shapes.ts'

export const integer = (what: string) =>
  Type.String({
    pattern: '^(0|[1-9][0-9]{0,14})$',
    description: `${what}: a whole number of at most 15 digits, once`,
  })
export const word = (what: string) =>
  Type.String({ pattern: ID_PATTERN, description: `${what}: 1 to 128 printable ASCII characters, once` })

const page = {
  limit: Type.Optional(
    Type.String({
      pattern: '^([1-9][0-9]?|[1-4][0-9]{2}|500)$',
      description: 'How many at most: 1 to 500, once',
    }),
  ),
  cursor: Type.Optional(
    Type.String({
      pattern: '^[\\x21-\\x7e]{1,1024}$',
      description: 'The `next` of the page before, as it is, once',
    }),
  ),
}

/** A query of a list, with what it takes beside `limit` and `cursor`. */
export const pageQuery = <T extends Record<string, TSchema>>(more: T) =>
  Type.Object({ ...page, ...more }, { additionalProperties: false })

export const PageOnly = Type.Object(page, { additionalProperties: false })

/** `limit` and `cursor` as the engine takes them. */
export function pageOf({ limit, cursor }: Static<typeof PageOnly>): PageQuery {
  return { ...(limit !== undefined && { limit: Number(limit) }), ...(cursor !== undefined && { cursor }) }
}

const KIND = `(${ENTRY_KINDS.join('|')})`
export const kinds = Type.Optional(
  Type.String({
    pattern: `^${KIND}(,${KIND})*$`,
    description: `Kinds of entries: of ${ENTRY_KINDS.join(', ')}, with commas between, once`,
  }),
)
/** A list of kinds out of a value that has the form of `kinds`. */
export function kindsOf(text: string | undefined): {
  readonly kinds?: readonly (typeof ENTRY_KINDS)[number][]
} {
  return text === undefined ? {} : { kinds: text.split(',') as (typeof ENTRY_KINDS)[number][] }
}

/** Each dimension is a parameter of its own name, beside those of the call. */
export const subjectQuery = <Names extends string>(own: Readonly<Record<Names, object>>) =>
  Type.Unsafe<Readonly<Record<string, string>> & { readonly [name in Names]?: string }>({
    type: 'object',
    properties: {
      ...own,
      user: {
        type: 'string',
        description: 'Whose windows to show: any dimension, as `dimension=value`, once',
      },
    },
    additionalProperties: { type: 'string', description: 'A dimension and its value, once' },
    maxProperties: 8 + Object.keys(own).length,
  })

export const AccountParams = Type.Object({ id: word('The account') })
export const RequestParams = Type.Object({ id: word('The account'), request_id: word('The request') })
export const GrantParams = Type.Object({ id: word('The account'), grant: word('The grant') })
export const KeyParams = Type.Object({ id: word('The key') })
export const RequestOnlyParams = Type.Object({ request_id: word('The request') })
