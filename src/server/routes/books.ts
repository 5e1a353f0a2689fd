/** What an account has open, who acts in it, its entries and its usage; and the journal of all accounts. */
import Type from 'typebox'
import { type App, type Door, READ, READ_OWN } from '../door.ts'
import { AccountParams, integer, kinds, kindsOf, PageOnly, pageOf, pageQuery } from '../query.ts'
import { EntryView, HoldView, pageAnswer, SubjectView, UsageRow } from '../schemas/answers.ts'

const Entries = pageQuery({
  kind: kinds,
  order: Type.Optional(
    Type.Unsafe<'oldest' | 'newest'>({
      type: 'string',
      enum: ['oldest', 'newest'],
      description: 'oldest (first) or newest, once',
    }),
  ),
})
const Journal = pageQuery({ kind: kinds })
const Usage = Type.Object(
  {
    from: integer('The first instant, in milliseconds since the epoch'),
    to: integer('The instant after the last, in milliseconds since the epoch'),
    bucket: Type.Optional(
      Type.String({
        pattern: '^([1-9][0-9]{0,6}[smhdw]|hour|day|week|month)$',
        description: 'How long a row is: hour, day, week, month, or a length such as 15m, once',
      }),
    ),
    group_by: Type.Optional(
      Type.String({
        pattern: '^[\\x21-\\x2b\\x2d-\\x7e]{1,256}(,[\\x21-\\x2b\\x2d-\\x7e]{1,256}){0,7}$',
        description:
          'At most 8 of feature, endpoint, subject.<dimension>, attributes.<name>, with commas between, once',
      }),
    ),
  },
  { additionalProperties: false },
)

export function books(app: App, door: Door): void {
  state(app, door)
  entries(app, door)
}

function state(app: App, { engine }: Door): void {
  app.get(
    '/v1/accounts/:id/holds',
    {
      schema: { params: AccountParams, querystring: PageOnly, response: { 200: pageAnswer(HoldView) } },
      config: {
        call: {
          id: 'listHolds',
          tag: 'books',
          says: 'List open holds by their end',
          roles: READ,
          scope: 'account',
          errors: ['account_unknown'],
        },
      },
    },
    async ({ params, query }) => engine.holds(params.id, pageOf(query)),
  )
  app.get(
    '/v1/accounts/:id/subjects',
    {
      schema: { params: AccountParams, querystring: PageOnly, response: { 200: pageAnswer(SubjectView) } },
      config: {
        call: {
          id: 'listSubjects',
          tag: 'books',
          says: 'List subjects with live state, and their limits',
          roles: READ,
          scope: 'account',
          errors: ['account_unknown'],
        },
      },
    },
    async ({ params, query }) => engine.subjects(params.id, pageOf(query)),
  )
  app.get(
    '/v1/accounts/:id/usage',
    {
      schema: { params: AccountParams, querystring: Usage, response: { 200: pageAnswer(UsageRow) } },
      config: {
        call: {
          id: 'usage',
          tag: 'books',
          says: 'Sum usage and cost over time, by what you ask',
          roles: READ_OWN,
          scope: 'account',
          errors: ['account_unknown'],
        },
      },
    },
    async ({ params, query: { from, to, bucket, group_by } }) => {
      const items = await engine.usage(params.id, {
        from: Number(from),
        to: Number(to),
        ...(bucket !== undefined && { bucket }),
        ...(group_by !== undefined && { group_by: group_by.split(',') }),
      })
      return { items, next: null }
    },
  )
}

function entries(app: App, { engine }: Door): void {
  app.get(
    '/v1/accounts/:id/entries',
    {
      schema: { params: AccountParams, querystring: Entries, response: { 200: pageAnswer(EntryView) } },
      config: {
        call: {
          id: 'listEntries',
          tag: 'books',
          says: 'List entries by their number',
          roles: READ,
          scope: 'account',
          errors: ['account_unknown'],
        },
      },
    },
    async ({ params, query }) =>
      engine.entries(params.id, {
        ...pageOf(query),
        ...kindsOf(query.kind),
        ...(query.order === 'newest' && { newestFirst: true }),
      }),
  )
  app.get(
    '/v1/entries',
    {
      schema: { querystring: Journal, response: { 200: pageAnswer(EntryView) } },
      config: {
        call: {
          id: 'journal',
          tag: 'books',
          says: 'List entries of all accounts in commit order, without gaps',
          roles: READ,
          scope: 'all',
          errors: [],
        },
      },
    },
    async ({ query }) => engine.journal({ ...pageOf(query), ...kindsOf(query.kind) }),
  )
}
