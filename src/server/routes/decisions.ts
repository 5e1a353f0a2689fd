/** Reserve and extend. A denial is a value: every decision is answered 200. */

import type { FastifyReply, FastifyRequest } from 'fastify'
import { decisionHeaders } from '../../decision-headers.ts'
import type { Engine } from '../../engine.ts'
import type { Key } from '../../keyring.ts'
import type { DecisionAnswer, ExtendRequest as Extend, ReserveRequest as Reserve } from '../../wire.ts'
import { bindSubject, checkAccount } from '../auth.ts'
import { type App, callerOf, type Door, METER } from '../door.ts'
import { tell } from '../log.ts'
import { DecisionAnswer as DecisionSchema } from '../schemas/answers.ts'
import { ExtendRequest, ReserveRequest } from '../schemas/requests.ts'
import { ref } from '../schemas/shapes.ts'

export function decisions(app: App, { engine }: Door): void {
  app.post(
    '/v1/reserve',
    {
      schema: { body: ref(ReserveRequest), response: { 200: ref(DecisionSchema) } },
      config: {
        call: {
          id: 'reserve',
          carries: 'limits',
          tag: 'decide',
          says: 'Decide how much is allowed and from where, and hold it',
          roles: METER,
          scope: 'subject',
          errors: [
            ...(['account_unknown', 'plan_unknown', 'feature_unknown', 'subject_missing'] as const),
            ...(['price_missing', 'estimate_missing', 'amount_overflow', 'conflict', 'too_many'] as const),
            ...(['policy_missing', 'clock_behind'] as const),
          ],
        },
      },
    },
    async (request, reply) => {
      tell(request.tale, request.body)
      return decided(await reserve(engine, request.key, request.body), request, reply)
    },
  )
  app.post(
    '/v1/extend',
    {
      schema: { body: ref(ExtendRequest), response: { 200: ref(DecisionSchema) } },
      config: {
        call: {
          id: 'extend',
          carries: 'limits',
          tag: 'decide',
          says: 'Grow a hold, move its end, or tell its progress',
          roles: METER,
          scope: 'subject',
          errors: [
            ...(['account_unknown', 'request_unknown', 'price_missing', 'amount_overflow'] as const),
            ...(['conflict', 'step_out_of_order', 'clock_behind'] as const),
          ],
        },
      },
    },
    async (request, reply) => {
      tell(request.tale, request.body)
      return decided(await extend(engine, request.key, request.body), request, reply)
    },
  )
}

/** Asks the engine, within what binds the key. The engine is called before the first wait. */
export async function reserve(engine: Engine, key: Key, body: Reserve): Promise<DecisionAnswer> {
  checkAccount(key, body.account)
  const subject = bindSubject(key, body.subject)
  return engine.reserve(subject === undefined ? body : { ...body, subject }, callerOf(key))
}

/** As `reserve`. */
export async function extend(engine: Engine, key: Key, body: Extend): Promise<DecisionAnswer> {
  checkAccount(key, body.account)
  return engine.extend(body, callerOf(key))
}

function decided(answer: DecisionAnswer, request: FastifyRequest, reply: FastifyReply): DecisionAnswer {
  request.tale.outcome = answer.outcome
  request.tale.reason = answer.reason
  reply.headers({ ...decisionHeaders(answer) })
  return answer
}
