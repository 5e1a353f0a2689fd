/**
 * What another proxy is told. A refusal is a value, with the status that its caller should see; an accident, of which nothing was
 * decided, is told apart, so that the proxy's own configuration says who passes then.
 */
import type { Refused } from '../../../client/access.ts'
import { SluiceError as ClientError } from '../../../client/error.ts'
import { refusalOf } from '../../../client/guard.ts'
import { decisionHeaders, retryAfter } from '../../decision-headers.ts'
import { SluiceError } from '../../errors.ts'
import type { DecisionAnswer } from '../../wire.ts'

export type Fields = Readonly<Record<string, string>>

export interface Passed {
  readonly kind: 'passed'
  /** For what stands behind the proxy: who pays, and under which id. Empty where no rule asked anybody. */
  readonly known: Fields
  /** For the caller: the `RateLimit` fields. */
  readonly fields: Fields
  readonly decision: DecisionAnswer | undefined
}
export interface Turned {
  readonly kind: 'refused' | 'undecided'
  readonly status: number
  readonly code: string
  readonly fields: Fields
  /** Problem details (RFC 9457). */
  readonly body: string
  readonly decision: DecisionAnswer | undefined
}
export type Verdict = Passed | Turned

/** What nobody has to pay for. */
export const UNASKED: Passed = { kind: 'passed', known: {}, fields: {}, decision: undefined }

export function passed(account: string, requestId: string, decision: DecisionAnswer | undefined): Passed {
  const { 'retry-after': _, ...fields } = decision === undefined ? {} : decisionHeaders(decision)
  const known = { 'x-sluice-account': account, 'x-sluice-request-id': requestId }
  return { kind: 'passed', known, fields, decision }
}

export function turned(refused: Refused, account: string): Verdict {
  if (refused.outcome === 'done') return repeated(refused.decision as DecisionAnswer, account)
  const { status, headers, body } = refusalOf(refused)
  const isDecided = refused.outcome !== 'unavailable'
  return {
    kind: isDecided ? 'refused' : 'undecided',
    ...{ status, body, fields: headers, code: refused.reason, decision: refused.decision },
  }
}

/** The first answer to an id holds for its repeats, unless what it let in was given back: nobody would pay for them. */
function repeated(decision: DecisionAnswer, account: string): Verdict {
  const isPaid = decision.state !== 'released' && decision.state !== 'expired_released'
  if (isPaid) return passed(account, decision.request_id, decision)
  return refusal(409, 'conflict', 'a request with this id was let in before, and given back')
}

/** What is answered to a reserve, as `access` tells it. */
export function verdictOf(decision: DecisionAnswer, account: string): Verdict {
  const { outcome, request_id, reason, retry_after_ms } = decision
  if (outcome === 'allow' || outcome === 'partial') return repeated(decision, account)
  return turned(
    {
      ok: false,
      ...{ request_id, outcome, reason, decision, retryAfterMs: retry_after_ms, error: undefined },
    },
    account,
  )
}

/** Whatever was thrown. Callers must not be able to bring an accident about: what is wrong with what they sent is refused. */
export function thrown(error: unknown): Turned {
  if (error instanceof ClientError)
    return accident(error.status, error.code, error.message, error.retryAfterMs)
  if (error instanceof SluiceError)
    return accident(error.status, error.code, error.message, error.detail.retryAfterMs)
  return accident(500, 'internal', 'the gateway has made a mistake', undefined)
}

/** About what was sent. What is wrong with the policy or the account is not the caller's to mend: it is forbidden. */
const AS_IT_IS = ['invalid', 'media_type', 'too_big']

function accident(status: number, code: string, message: string, retryAfterMs: number | undefined): Turned {
  if (status < 400 || status >= 500) {
    const wait: Fields = retryAfterMs === undefined ? {} : { 'retry-after': retryAfter(retryAfterMs) }
    return { ...refusal(503, code, message, wait), kind: 'undecided' }
  }
  if (status === 401) return refusal(401, code, message, { 'www-authenticate': 'Bearer' })
  return refusal(AS_IT_IS.includes(code) ? status : 403, code, message)
}

export function refusal(status: number, code: string, message: string, fields: Fields = {}): Turned {
  return {
    kind: 'refused',
    status,
    code,
    fields: { 'content-type': 'application/problem+json; charset=utf-8', ...fields },
    body: JSON.stringify({ type: 'about:blank', title: message, status, code }),
    decision: undefined,
  }
}
