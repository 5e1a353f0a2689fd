/** Requests: their whole story, and refunds. */

import { SluiceError } from '../../errors.ts'
import type { Key } from '../../keyring.ts'
import type { Explanation as Story } from '../../wire.ts'
import { forbidden, owns } from '../auth.ts'
import { ADMIN, ANY, type App, callerOf, type Door } from '../door.ts'
import { RequestOnlyParams, RequestParams } from '../query.ts'
import { Explanation, pageAnswer, RefundAnswer } from '../schemas/answers.ts'
import { RefundRequest } from '../schemas/requests.ts'
import { ref } from '../schemas/shapes.ts'

export function requests(app: App, { engine }: Door): void {
  app.get(
    '/v1/accounts/:id/requests/:request_id',
    {
      schema: { params: RequestParams, response: { 200: ref(Explanation) } },
      config: {
        call: {
          id: 'explain',
          tag: 'books',
          says: 'Tell the whole story of a request',
          roles: ANY,
          scope: 'subject',
          errors: ['account_unknown', 'request_unknown'],
        },
      },
    },
    async ({ params, key }) => {
      const story = await engine.explain(params.id, params.request_id, callerOf(key))
      if (isOthers(key, story)) {
        throw forbidden(
          'The request is another subject’s.',
          '/request_id',
          'Name a request of the key’s own subject.',
        )
      }
      return story
    },
  )
  app.get(
    '/v1/requests/:request_id',
    {
      schema: { params: RequestOnlyParams, response: { 200: pageAnswer(Explanation) } },
      config: {
        call: {
          id: 'explainAnywhere',
          tag: 'books',
          says: 'Tell the stories of all requests with this id, over all accounts that the key may see',
          roles: ANY,
          scope: 'subject',
          errors: ['request_unknown'],
        },
      },
    },
    async ({ params, key }) => {
      const { request_id } = params
      const stories =
        key.account === undefined
          ? await engine.explainAnywhere(request_id, callerOf(key))
          : [await engine.explain(key.account, request_id, callerOf(key))]
      const items = stories.filter((story) => !isOthers(key, story))
      if (items.length > 0) return { items, next: null }
      throw new SluiceError('request_unknown', 'No account knows this request.', {
        path: '/request_id',
        remedy: 'Check the id, and which account and subject the key is bound to.',
      })
    },
  )
  app.post(
    '/v1/accounts/:id/requests/:request_id/refund',
    {
      schema: { params: RequestParams, body: ref(RefundRequest), response: { 200: ref(RefundAnswer) } },
      config: {
        call: {
          id: 'refund',
          tag: 'books',
          says: 'Correct a charge: give back all, an amount, or the difference to what was truly used',
          roles: ADMIN,
          scope: 'account',
          errors: [
            'account_unknown',
            'request_unknown',
            'feature_unknown',
            'price_missing',
            'conflict',
            'too_many',
            'clock_behind',
          ],
        },
      },
    },
    async ({ params, body, key }) => engine.refund(params.id, params.request_id, body, callerOf(key)),
  )
}

/**
 * A story without a subject is nobody's: a key that is bound to one does not see it. One that is only of refusals has been
 * cut to the key's own.
 */
function isOthers(key: Key, story: Story): boolean {
  if (story.entries.length === 0 && story.refusals.length > 0) return false
  return key.subject !== undefined && !owns(key, story.subject ?? {})
}
