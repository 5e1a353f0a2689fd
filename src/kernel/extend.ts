/** Extend: an open hold grows, lives on, and hears how far the work has come. */

import { present } from '../assert.ts'
import type { DecisionBody } from '../ledger/entries.ts'
import { price, type Quantities, rateLine } from '../ledger/price.ts'
import type { Micros, Millis } from '../units.ts'
import { advance } from './advance.ts'
import { type Advice, advise } from './advise.ts'
import { chargedBefore, type Decided, decidedBefore } from './answers.ts'
import type { Cells, Hold, RequestCell } from './cells.ts'
import { splitOf } from './charge.ts'
import { asksMore, decide, standing, type Verdict } from './decide.ts'
import { type Context, copyRequest, type Draft, onAccount, type StepEnv, type StepOutcome } from './draft.ts'
import { fail, type Reply } from './faults.ts'
import { type Asked, growHold, missingSubjects, moveEnd, questionOf } from './hold.ts'
import { meaningHash, requireOwn, requireSameMeaning } from './meaning.ts'
import { type Ask, type Priced, priceAsk } from './pricing.ts'
import type { Reason } from './reasons.ts'
import { planOf } from './reserve.ts'

export interface ExtendOp {
  readonly account: string
  readonly requestId: string
  /** 1, 2, 3…: recognises a repeat. */
  readonly step: number
  /** The new total; undefined is a heartbeat. */
  readonly ask: Exclude<Ask, { kind: 'default' }> | undefined
  readonly leastCost: Micros | undefined
  readonly ttlMs: Millis | undefined
  readonly used: Quantities | undefined
  readonly meaning: string
}

export function extend(
  cells: Cells,
  env: StepEnv,
  context: Context,
  op: ExtendOp,
): StepOutcome<Reply<Decided>> {
  const missing = missingSubjects(cells, env, op.requestId)
  if (missing.length > 0) return { need: missing }
  return onAccount(cells, env, context, op.account, (draft) => {
    advance(draft)
    const known = draft.request(op.requestId)
    if (known === null) {
      fail('request_unknown', `account ${op.account} has no request ${op.requestId}`, {
        path: '/request_id',
        remedy: 'reserve it first',
      })
    }
    requireOwn(draft, known)
    if (known.state === 'recorded') {
      fail('conflict', `request ${op.requestId} was recorded without a hold`, {
        path: '/request_id',
        remedy: 'reserve under a new request_id',
        first: chargedBefore(draft, known),
      })
    }
    if (op.step === known.step && known.seqs.step !== undefined) {
      const answer = decidedBefore(draft, known, known.seqs.step)
      requireSameMeaning(draft, known, known.meanings.step, op.meaning, answer)
      return { result: answer, keep: false }
    }
    if (known.state !== 'open') return { result: closed(draft, known, 'hold_closed'), keep: false }
    if (op.step !== known.step + 1) {
      fail('step_out_of_order', `step ${op.step} does not follow step ${known.step}`, {
        path: '/step',
        remedy: `send step ${known.step + 1}`,
      })
    }
    const request = copyRequest(known)
    const result = next(draft, request, op)
    return { result, keep: result.body.outcome === 'allow' || result.body.outcome === 'partial' }
  })
}

function next(draft: Draft, request: RequestCell, op: ExtendOp): Decided {
  const plan = planOf(draft)
  const { status } = draft.account
  if (status !== 'active')
    return closed(draft, request, status === 'suspended' ? 'account_suspended' : 'account_closed')
  const hold = present(request.hold, 'an open request has a hold')
  const feature = draft.env.policy.at(request.policyVersion)?.features.get(request.feature)
  if (feature === undefined)
    fail('feature_unknown', `policy ${request.policyVersion} has no feature ${request.feature}`, {
      path: '/request_id',
      remedy: 'settle it with a cost, or reserve anew',
    })

  const priced =
    op.ask === undefined
      ? { cost: hold.granted, quantities: hold.estimate, line: undefined }
      : priceAsk(feature, request.attributes, op.ask, plan, draft.context.isUnpricedFree)
  if (op.used !== undefined) {
    request.progress = {
      costMicros: price(feature.card, request.attributes, op.used).costMicros,
      quantities: op.used,
    }
  }
  const asked = askedFor(request, hold, priced, op, rateLine(feature.card, request.attributes))
  const question = questionOf(draft, plan, asked, draft.nowAt)
  const verdict: Verdict | undefined = asksMore(question) ? decide(question) : undefined
  if (verdict?.outcome === 'refuse') {
    const held = { granted: hold.granted, endAt: present(request.expiresAt, 'open') }
    const { outcome, advice } = advise(draft, plan, asked, verdict, held)
    return told(
      draft,
      request,
      bodyOf(draft, request, op, priced, { outcome, reason: verdict.reason, limits: verdict.limits }),
      advice,
    )
  }

  draft.keep(request)
  if (verdict !== undefined) {
    const quantities = verdict.outcome === 'allow' ? priced.quantities : verdict.quantities
    growHold(draft, plan, request, verdict, hold.granted + verdict.granted, quantities)
  }
  const wanted = Math.min(hold.maxEndAt, draft.nowAt + (op.ttlMs ?? plan.hold.ttlMs))
  moveEnd(draft, request, Math.max(present(request.expiresAt, 'open'), wanted))
  request.step = op.step
  request.meanings.step = meaningHash(draft, request.salt, op.meaning)
  const body = bodyOf(draft, request, op, priced, {
    outcome: verdict?.outcome === 'partial' ? 'partial' : 'allow',
    reason: verdict?.reason ?? 'granted',
    limits: verdict?.limits ?? standing(question),
  })
  const seq = draft.append('decision', body, {
    request: request.id,
    previous: request.seqs.last,
    person: { subject: request.subject, attributes: request.attributes },
  })
  request.seqs = { ...request.seqs, step: seq, last: seq }
  return told(draft, request, body)
}

/** What is new of the total: the rest is held already. */
function askedFor(
  request: RequestCell,
  hold: Hold,
  priced: Priced,
  op: ExtendOp,
  line: Priced['line'],
): Asked {
  return {
    feature: request.feature,
    subject: request.subject,
    cost: Math.max(0, priced.cost - hold.granted),
    floor: op.leastCost === undefined ? undefined : Math.max(0, op.leastCost - hold.granted),
    quantities: priced.quantities,
    line,
    base: { cost: hold.granted, quantities: hold.estimate },
  }
}

function closed(draft: Draft, request: RequestCell, reason: Reason): Decided {
  const body = bodyOf(draft, request, undefined, undefined, { outcome: 'deny', reason, limits: [] })
  return told(draft, request, body)
}

function bodyOf(
  draft: Draft,
  request: RequestCell,
  op: ExtendOp | undefined,
  priced: Priced | undefined,
  result: Pick<DecisionBody, 'outcome' | 'reason' | 'limits'>,
): DecisionBody {
  const hold = request.hold
  return {
    op: 'extend',
    ...(op === undefined ? {} : { step: op.step }),
    feature: request.feature,
    plan: draft.account.plan,
    policy: request.policyVersion,
    outcome: result.outcome,
    reason: result.reason,
    cost: priced?.cost ?? hold?.granted ?? 0,
    granted: hold?.granted ?? 0,
    ...(priced?.quantities === undefined ? {} : { estimate: priced.quantities }),
    ...(result.outcome === 'partial' && priced?.quantities !== undefined && hold?.estimate !== undefined
      ? { granted_estimate: hold.estimate }
      : {}),
    from: splitOf(hold?.parts ?? []),
    expires_at: request.expiresAt,
    limits: result.limits,
  }
}

function told(draft: Draft, request: RequestCell, body: DecisionBody, advice?: Advice): Decided {
  return {
    requestId: request.id,
    body,
    decidedAt: draft.nowAt,
    subject: request.subject,
    state: request.state,
    replayed: false,
    ...(advice === undefined ? {} : { advice }),
  }
}
