/** Grants: amounts of credits, given and taken back. */
import { ADMIN, type App, callerOf, type Door, READ } from '../door.ts'
import { AccountParams, GrantParams, PageOnly, pageOf } from '../query.ts'
import { GrantAnswer, GrantView, pageAnswer } from '../schemas/answers.ts'
import { GrantRequest, RevokeRequest } from '../schemas/requests.ts'
import { ref } from '../schemas/shapes.ts'

export function grants(app: App, { engine }: Door): void {
  app.post(
    '/v1/accounts/:id/grants',
    {
      schema: { params: AccountParams, body: ref(GrantRequest), response: { 200: ref(GrantAnswer) } },
      config: {
        call: {
          id: 'grant',
          tag: 'credits',
          says: 'Give credits',
          roles: ADMIN,
          scope: 'account',
          errors: [
            'account_unknown',
            'feature_unknown',
            'conflict',
            'too_many',
            'amount_overflow',
            'clock_behind',
          ],
        },
      },
    },
    async ({ params, body, key }) => engine.grant(params.id, body, callerOf(key)),
  )
  app.get(
    '/v1/accounts/:id/grants',
    {
      schema: { params: AccountParams, querystring: PageOnly, response: { 200: pageAnswer(GrantView) } },
      config: {
        call: {
          id: 'listGrants',
          tag: 'credits',
          says: 'List grants, spent ones too',
          roles: READ,
          scope: 'account',
          errors: ['account_unknown'],
        },
      },
    },
    async ({ params, query }) => engine.grants(params.id, pageOf(query)),
  )
  app.post(
    '/v1/accounts/:id/grants/:grant/revoke',
    {
      schema: { params: GrantParams, body: ref(RevokeRequest), response: { 200: ref(GrantView) } },
      // The body may be absent: there is nothing that it must say.
      preValidation: (request, _reply, done) => {
        request.body ??= {}
        done()
      },
      config: {
        call: {
          id: 'revokeGrant',
          tag: 'credits',
          says: 'Take back what is left of a grant',
          roles: ADMIN,
          scope: 'account',
          errors: ['account_unknown', 'grant_unknown', 'clock_behind'],
        },
      },
    },
    async ({ params, body, key }) => engine.revokeGrant(params.id, params.grant, body, callerOf(key)),
  )
}
