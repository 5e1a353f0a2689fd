/** Accounts: who pays, on which plan, under which exceptions. */
import type { IncomingHttpHeaders } from 'node:http'
import type { FastifyReply } from 'fastify'
import Type from 'typebox'
import type { AccountView as View } from '../../wire.ts'
import { bindSubject } from '../auth.ts'
import { ADMIN, ANY_OWN, type App, callerOf, type Door, READ } from '../door.ts'
import { etagOf, ifMatch } from '../etag.ts'
import { MERGE_PATCH } from '../json.ts'
import { AccountParams, pageOf, pageQuery, subjectQuery, word } from '../query.ts'
import { AccountView, EraseAnswer, pageAnswer } from '../schemas/answers.ts'
import { AccountPatch, AccountRequest, EraseRequest, OverridesRequest } from '../schemas/requests.ts'
import { ref, Status } from '../schemas/shapes.ts'

const SubjectQuery = subjectQuery({})
const Listed = pageQuery({
  q: Type.Optional(
    Type.String({
      maxLength: 256,
      description:
        'A text that the id, or a value of the metadata, contains anywhere: at most 256 characters, once',
    }),
  ),
  plan: Type.Optional(word('The plan')),
  status: Type.Optional(Status),
})

export function accounts(app: App, door: Door): void {
  makeAndList(app, door)
  readAndChange(app, door)
  eraseAndRepair(app, door)
}

function makeAndList(app: App, { engine }: Door): void {
  app.post(
    '/v1/accounts',
    {
      schema: { body: ref(AccountRequest), response: { 200: ref(AccountView) } },
      config: {
        call: {
          id: 'createAccount',
          carries: 'etag',
          tag: 'accounts',
          says: 'Make an account',
          roles: ADMIN,
          scope: 'all',
          errors: ['plan_unknown', 'conflict', 'policy_missing'],
        },
      },
    },
    async (request, reply) => tagged(await engine.createAccount(request.body, callerOf(request.key)), reply),
  )
  app.get(
    '/v1/accounts',
    {
      schema: { querystring: Listed, response: { 200: pageAnswer(AccountView) } },
      config: {
        call: {
          id: 'listAccounts',
          tag: 'accounts',
          says: 'List accounts by id',
          roles: READ,
          scope: 'all',
          errors: [],
        },
      },
    },
    async ({ query }) => {
      const { q, plan, status } = query
      return engine.accounts({
        ...pageOf(query),
        ...(q !== undefined && { q }),
        ...(plan !== undefined && { plan }),
        ...(status !== undefined && { status }),
      })
    },
  )
}

function readAndChange(app: App, { engine }: Door): void {
  app.get(
    '/v1/accounts/:id',
    {
      schema: { params: AccountParams, querystring: SubjectQuery, response: { 200: ref(AccountView) } },
      config: {
        call: {
          id: 'readAccount',
          carries: 'etag',
          tag: 'accounts',
          says: 'Show an account: credits, allowances, limits, and those of the subject in the query',
          roles: ANY_OWN,
          scope: 'subject',
          errors: ['account_unknown'],
        },
      },
    },
    async (request, reply) => {
      const asked = Object.keys(request.query).length === 0 ? undefined : request.query
      const subject = bindSubject(request.key, asked, '')
      return tagged(await engine.account(request.params.id, subject, callerOf(request.key)), reply)
    },
  )
  app.patch(
    '/v1/accounts/:id',
    {
      schema: { params: AccountParams, body: ref(AccountPatch), response: { 200: ref(AccountView) } },
      config: {
        call: {
          id: 'patchAccount',
          carries: 'etag',
          ifMatch: 'may',
          tag: 'accounts',
          says: 'Change plan, status, time zone or notes: a merge patch',
          roles: ADMIN,
          scope: 'account',
          errors: ['account_unknown', 'plan_unknown', 'precondition_failed', 'clock_behind'],
        },
        media: ['application/json', MERGE_PATCH],
      },
    },
    async ({ params, body, headers, key }, reply) =>
      tagged(await engine.patchAccount(params.id, body, revisionOf(headers), callerOf(key)), reply),
  )
  app.put(
    '/v1/accounts/:id/overrides',
    {
      schema: { params: AccountParams, body: ref(OverridesRequest), response: { 200: ref(AccountView) } },
      config: {
        call: {
          id: 'overrideLimits',
          carries: 'etag',
          ifMatch: 'may',
          tag: 'accounts',
          says: 'Replace limits by name, for the account or one of its subjects',
          roles: ADMIN,
          scope: 'account',
          errors: ['account_unknown', 'precondition_failed', 'too_many', 'clock_behind'],
        },
      },
    },
    async ({ params, body, headers, key }, reply) =>
      tagged(await engine.overrideLimits(params.id, body, revisionOf(headers), callerOf(key)), reply),
  )
}

/** What an operator does, and seldom. To erase reads every entry of the account, a page at a time: 1.9 s for 61,000 on SQLite. */
function eraseAndRepair(app: App, { engine }: Door): void {
  app.post(
    '/v1/accounts/:id/erase',
    {
      schema: { params: AccountParams, body: ref(EraseRequest), response: { 200: ref(EraseAnswer) } },
      config: {
        call: {
          id: 'erase',
          tag: 'accounts',
          says: 'Forget a person: remove what names a subject from entries, closed requests and refusals',
          roles: ADMIN,
          scope: 'account',
          errors: ['account_unknown', 'conflict', 'clock_behind'],
        },
      },
    },
    async ({ params, body, key }) => engine.erase(params.id, body.dimension, body.value, callerOf(key)),
  )
  app.post(
    '/v1/accounts/:id/repair',
    {
      schema: { params: AccountParams, response: { 200: ref(AccountView) } },
      config: {
        call: {
          id: 'repairAccount',
          carries: 'etag',
          tag: 'accounts',
          says: 'Bring an account that has seen a later instant than the clock (`clock_behind`) back to now',
          roles: ADMIN,
          scope: 'account',
          errors: ['account_unknown'],
        },
      },
    },
    async ({ params, key }, reply) => tagged(await engine.repairClock(params.id, callerOf(key)), reply),
  )
}

/** `*` asks only that there be an account, which the engine checks anyway. */
function revisionOf(headers: IncomingHttpHeaders): number | undefined {
  const wanted = ifMatch(headers['if-match'])
  return wanted === '*' ? undefined : wanted
}

function tagged(view: View, reply: FastifyReply): View {
  reply.header('etag', etagOf(view.revision))
  return view
}
