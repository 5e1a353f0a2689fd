/** Keys: made and revoked here; only hashes are kept, and a secret is told once. */
import { ADMIN, type App, callerOf, type Door, READ } from '../door.ts'
import { KeyParams, PageOnly, pageOf } from '../query.ts'
import { KeyMade, KeyView, pageAnswer } from '../schemas/answers.ts'
import { KeyRequest } from '../schemas/requests.ts'
import { ref } from '../schemas/shapes.ts'

export function keys(app: App, { engine, auth }: Door): void {
  app.post(
    '/v1/keys',
    {
      schema: { body: ref(KeyRequest), response: { 200: ref(KeyMade) } },
      config: {
        call: {
          id: 'createKey',
          tag: 'keys',
          says: 'Make a key; its secret is told once',
          roles: ADMIN,
          scope: 'all',
          errors: ['account_unknown', 'conflict', 'too_many'],
        },
      },
    },
    async ({ body, key }) => engine.createKey(body, callerOf(key)),
  )
  app.get(
    '/v1/keys',
    {
      schema: { querystring: PageOnly, response: { 200: pageAnswer(KeyView) } },
      config: {
        call: { id: 'listKeys', tag: 'keys', says: 'List keys', roles: READ, scope: 'all', errors: [] },
      },
    },
    async ({ query }) => engine.keys(pageOf(query)),
  )
  app.post(
    '/v1/keys/:id/revoke',
    {
      schema: { params: KeyParams, response: { 200: ref(KeyView) } },
      config: {
        call: {
          id: 'revokeKey',
          tag: 'keys',
          says: 'Revoke a key: at once here, within a second on other nodes',
          roles: ADMIN,
          scope: 'all',
          errors: ['key_unknown'],
        },
      },
    },
    async ({ params, key }) => {
      const view = await engine.revokeKey(params.id, callerOf(key))
      auth.forget()
      return view
    },
  )
}
