/** Why a call got no answer: from what Sluice decided, what it could not decide, or what an upstream did. */
import type { Refused } from '../../client/access.ts'
import { SluiceError as ClientError } from '../../client/error.ts'
import { decisionHeaders, retryAfter } from '../decision-headers.ts'
import { SluiceError } from '../errors.ts'
import type { DecisionAnswer } from '../wire.ts'
import { BadBody, type Failure, type FailureKind, UnknownId } from './provider.ts'
import { UpstreamFailed } from './upstream.ts'

export interface Told {
  readonly failure: Failure
  readonly headers: Readonly<Record<string, string>>
}

const told = (
  status: number,
  kind: FailureKind,
  code: string,
  message: string,
  headers: Readonly<Record<string, string>> = {},
): Told => ({ failure: { status, kind, code, message }, headers })

export const badRequest = (code: string, message: string): Told => told(400, 'invalid', code, message)
export const notFound = (message: string): Told => told(404, 'not_found', 'not_found', message)
export const unknownVideo = (id: string): Told => notFound(`there is no video ${id}`)
export const tooBig = (message: string): Told => told(413, 'too_big', 'too_big', message)
export const badUpstream = (code: string, message: string): Told => told(502, 'upstream', code, message)
export const unauthorized = (message: string): Told => told(401, 'unauthorized', 'unauthorized', message)
export const forbidden = (message: string): Told => told(403, 'forbidden', 'forbidden', message)

export function failureOf(error: unknown): Told {
  if (error instanceof UpstreamFailed)
    return told(error.code === 'upstream_slow' ? 504 : 502, 'upstream', error.code, error.message)
  if (error instanceof BadBody) {
    if (error.path === '') return badRequest('invalid', error.message)
    return at(error.path, badRequest('invalid', `${error.path}: ${error.message}`))
  }
  if (error instanceof UnknownId) return at(error.path, notFound(error.message))
  if (error instanceof ClientError)
    return ofProblem(error.code, error.status, error.message, error.retryAfterMs)
  if (error instanceof SluiceError)
    return ofProblem(error.code, error.status, error.message, error.detail.retryAfterMs)
  return told(500, 'overloaded', 'internal', 'the gateway has made a mistake')
}

const at = (path: string, { failure, headers }: Told): Told => ({
  failure: path === '' ? failure : { ...failure, path: path.slice(1).replaceAll('/', '.') },
  headers,
})

function ofProblem(code: string, status: number, message: string, retryAfterMs: number | undefined): Told {
  if (code === 'unauthorized') return unauthorized(message)
  if (code === 'forbidden') return forbidden(message)
  // What is wrong with the gateway's configuration or the policy is not the caller's to mend.
  const isCallers = status === 413 || ['account_unknown', 'too_many', 'amount_overflow'].includes(code)
  return isCallers
    ? told(400, 'invalid', code, message)
    : told(503, 'overloaded', code, message, {
        ...(retryAfterMs !== undefined && { 'retry-after': retryAfter(retryAfterMs) }),
        // The official clients would try again by themselves.
        ...(status < 500 && { 'x-should-retry': 'false' }),
      })
}

/** The official clients wait for no longer than this: told of more, they try again at once, and in vain. */
const RETRIED_WITHIN_MS = 60_000

export function refusalOf({ request_id, outcome, reason, retryAfterMs, decision, error }: Refused): Told {
  if (outcome === 'unavailable') {
    const headers: Record<string, string> =
      retryAfterMs === undefined ? {} : { 'retry-after': retryAfter(retryAfterMs) }
    return told(503, 'overloaded', error?.code ?? 'unavailable', 'Sluice cannot decide now', headers)
  }
  const kind = outcome === 'wait' ? 'wait' : 'spent'
  const { failure } = told(429, kind, reason, sentence(outcome, reason, retryAfterMs))
  return {
    failure: { ...failure, ...(decision?.unblock !== undefined && { unblock: decision.unblock }) },
    headers: {
      ...limitHeaders(decision),
      'x-sluice-request-id': request_id,
      // The official clients try again by themselves, unless they are told that it is in vain.
      'x-should-retry': String(kind === 'wait' && (retryAfterMs ?? 0) < RETRIED_WITHIN_MS),
      ...(retryAfterMs !== undefined && {
        'retry-after': retryAfter(retryAfterMs),
        'retry-after-ms': String(Math.ceil(retryAfterMs)),
      }),
    },
  }
}

function sentence(outcome: string, reason: string, retryAfterMs: number | undefined): string {
  const when = retryAfterMs === undefined ? '' : ` More is allowed in ${retryAfter(retryAfterMs)} s.`
  return outcome === 'wait' ? `Not now: ${reason}.${when}` : `Not allowed: ${reason}.${when}`
}

/** The limits of a decision: the draft's fields, and those that clients of OpenAI read, where a limit counts what they name. */
export function limitHeaders(decision: DecisionAnswer | undefined): Readonly<Record<string, string>> {
  if (decision === undefined) return {}
  const { 'retry-after': _, ...fields } = decisionHeaders(decision)
  const named: Record<string, string> = {}
  for (const { unit, limit, remaining, resets_at } of decision.limits) {
    const what = unit === 'requests' ? 'requests' : unit.endsWith('tokens') ? 'tokens' : undefined
    if (what === undefined) continue
    const before = named[`x-ratelimit-remaining-${what}`]
    // Of several limits the tightest counts.
    if (before !== undefined && Number(before) <= Number(remaining)) continue
    named[`x-ratelimit-limit-${what}`] = limit
    named[`x-ratelimit-remaining-${what}`] = remaining
    if (resets_at !== undefined)
      named[`x-ratelimit-reset-${what}`] =
        `${Math.max(0, Math.ceil((resets_at - decision.decided_at) / 1000))}s`
  }
  return { ...fields, ...named }
}
