/** Settle, release and record: what happened to a request. */

import type { Engine } from '../../engine.ts'
import type { Key } from '../../keyring.ts'
import type * as wire from '../../wire.ts'
import { bindSubject, checkAccount } from '../auth.ts'
import { type App, callerOf, type Door, METER } from '../door.ts'
import { tell } from '../log.ts'
import { ChargeAnswer, ReleaseAnswer } from '../schemas/answers.ts'
import { RecordRequest, ReleaseRequest, SettleRequest } from '../schemas/requests.ts'
import { ref } from '../schemas/shapes.ts'

const MAY_FAIL = ['account_unknown', 'conflict', 'clock_behind'] as const
const MAY_NOT_PRICE = [
  'feature_unknown',
  'subject_missing',
  'price_missing',
  'too_old',
  'amount_overflow',
] as const

export function metering(app: App, { engine }: Door): void {
  app.post(
    '/v1/settle',
    {
      schema: { body: ref(SettleRequest), response: { 200: ref(ChargeAnswer) } },
      config: {
        call: {
          id: 'settle',
          tag: 'meter',
          says: 'Charge what was really used, and give the rest of the hold back',
          roles: METER,
          scope: 'subject',
          errors: [...MAY_FAIL, ...MAY_NOT_PRICE, 'request_unknown'],
        },
      },
    },
    async (request) => {
      tell(request.tale, request.body)
      return settle(engine, request.key, request.body)
    },
  )
  app.post(
    '/v1/release',
    {
      schema: { body: ref(ReleaseRequest), response: { 200: ref(ReleaseAnswer) } },
      config: {
        call: {
          id: 'release',
          tag: 'meter',
          says: 'Give a hold back: nothing was used',
          roles: METER,
          scope: 'subject',
          errors: MAY_FAIL,
        },
      },
    },
    async (request) => {
      tell(request.tale, request.body)
      return release(engine, request.key, request.body)
    },
  )
  app.post(
    '/v1/record',
    {
      schema: { body: ref(RecordRequest), response: { 200: ref(ChargeAnswer) } },
      config: {
        call: {
          id: 'record',
          tag: 'meter',
          says: 'Report usage that already happened, without a hold',
          roles: METER,
          scope: 'subject',
          errors: [...MAY_FAIL, ...MAY_NOT_PRICE, 'too_many', 'policy_missing'],
        },
      },
    },
    async (request) => {
      tell(request.tale, request.body)
      return record(engine, request.key, request.body)
    },
  )
}

/**
 * Asks the engine, within what binds the key. The engine is called before the first wait. A settle need not say whose the
 * request is: it may have more dimensions than the key binds, and the engine lets no key at another's.
 */
export async function settle(engine: Engine, key: Key, body: wire.SettleRequest): Promise<wire.ChargeAnswer> {
  if (body.subject !== undefined) return engine.settle(bound(key, body), callerOf(key))
  checkAccount(key, body.account)
  return engine.settle(body, callerOf(key))
}

/** As `settle`. */
export async function record(engine: Engine, key: Key, body: wire.RecordRequest): Promise<wire.ChargeAnswer> {
  return engine.record(bound(key, body), callerOf(key))
}

/** As `settle`. */
export async function release(
  engine: Engine,
  key: Key,
  body: wire.ReleaseRequest,
): Promise<wire.ReleaseAnswer> {
  checkAccount(key, body.account)
  return engine.release(body, callerOf(key))
}

/** The body with the key's subject in it, if the account is the key's own. */
function bound<T extends wire.SettleRequest | wire.RecordRequest>(key: Key, body: T): T {
  checkAccount(key, body.account)
  const subject = bindSubject(key, body.subject)
  return subject === undefined ? body : { ...body, subject }
}
