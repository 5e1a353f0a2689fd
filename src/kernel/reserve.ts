/** Reserve: may this request begin, and what holds for it. Read from top to bottom. */

import type { DecisionBody } from '../ledger/entries.ts'
import type { Subject } from '../ledger/grants.ts'
import { type Attributes, price, type Quantities } from '../ledger/price.ts'
import type { Micros, Millis } from '../units.ts'
import { openAccount } from './account.ts'
import { advance } from './advance.ts'
import { type Advice, advise } from './advise.ts'
import { chargedBefore, type Decided, decidedBefore } from './answers.ts'
import { CELL_FORMAT, type Cells, type RequestCell } from './cells.ts'
import { splitOf } from './charge.ts'
import { decide } from './decide.ts'
import { type Context, type Draft, onAccount, type StepEnv, type StepOutcome } from './draft.ts'
import { fail, type Reply } from './faults.ts'
import { type Asked, questionOf, takeHold } from './hold.ts'
import { meaningHash, requireOwn, requireSameMeaning } from './meaning.ts'
import type { Plan } from './plan.ts'
import { type Ask, featureOf, type Priced, priceAsk } from './pricing.ts'
import type { Reason } from './reasons.ts'

export interface ReserveOp {
  readonly account: string
  readonly requestId: string
  readonly subject: Subject
  readonly feature: string
  readonly attributes: Attributes
  readonly ask: Ask
  /** The least that is welcome, as a cost or as quantities. */
  readonly leastCost: Micros | undefined
  readonly leastQuantities: Quantities | undefined
  readonly ttlMs: Millis | undefined
  readonly dryRun: boolean
  /** Canonical text of what is asked: a repeat must mean the same. */
  readonly meaning: string
}

export function reserve(
  cells: Cells,
  env: StepEnv,
  context: Context,
  op: ReserveOp,
): StepOutcome<Reply<Decided>> {
  return onAccount(
    cells,
    env,
    context,
    op.account,
    (draft) => {
      advance(draft)
      const known = draft.request(op.requestId)
      if (known !== null) return { result: again(draft, known, op), keep: false }
      const result = first(draft, op)
      return {
        result,
        keep: !op.dryRun && (result.body.outcome === 'allow' || result.body.outcome === 'partial'),
      }
    },
    () => openAccount(env, context, op.account),
  )
}

/** A known id: the first answer, unless it was given to another question. */
function again(draft: Draft, known: RequestCell, op: ReserveOp): Decided {
  requireOwn(draft, known)
  if (known.seqs.decision === undefined) {
    if (known.charge !== undefined) {
      fail('conflict', `request ${op.requestId} was recorded without a reserve`, {
        path: '/request_id',
        remedy: 'use a new request_id',
        first: chargedBefore(draft, known),
      })
    }
    return refusal(draft, op, { cost: 0, quantities: undefined, line: undefined }, 'released', known.state)
  }
  const answer = decidedBefore(draft, known, known.seqs.decision)
  requireSameMeaning(draft, known, known.meanings.reserve, op.meaning, answer)
  return answer
}

function first(draft: Draft, op: ReserveOp): Decided {
  const feature = featureOf(draft.policy, op.feature)
  const plan = planOf(draft)
  const priced = priceAsk(feature, op.attributes, op.ask, plan, draft.context.isUnpricedFree)
  const barred = barredBy(draft, plan, op)
  if (barred !== undefined) return refusal(draft, op, priced, barred)

  const floor =
    op.leastQuantities === undefined
      ? op.leastCost
      : price(feature.card, op.attributes, op.leastQuantities).costMicros
  const asked: Asked = {
    feature: op.feature,
    subject: op.subject,
    ...priced,
    floor,
    least: op.leastQuantities,
  }
  const verdict = decide(questionOf(draft, plan, asked, draft.nowAt))
  if (verdict.outcome === 'refuse') {
    const { outcome, advice } = advise(draft, plan, asked, verdict)
    const body = bodyOf(draft, op, priced, { outcome, reason: verdict.reason, limits: verdict.limits })
    return { ...told(draft, op, body, 'none'), advice }
  }

  const endAt = draft.nowAt + Math.min(op.ttlMs ?? plan.hold.ttlMs, plan.hold.maxLifetimeMs)
  const body = bodyOf(draft, op, priced, {
    outcome: verdict.outcome,
    reason: verdict.reason,
    granted: verdict.granted,
    from: splitOf(verdict.parts),
    expires_at: endAt,
    limits: verdict.limits,
    granted_estimate: verdict.outcome === 'partial' ? verdict.quantities : undefined,
  })
  if (op.dryRun) return told(draft, op, body, 'none')
  const request = draft.keep(newRequest(draft, op.requestId, op.feature, op.subject, op.attributes))
  request.meanings.reserve = meaningHash(draft, request.salt, op.meaning)
  takeHold(draft, plan, request, verdict, endAt)
  const seq = draft.append('decision', body, {
    request: op.requestId,
    person: { subject: op.subject, attributes: op.attributes },
  })
  request.seqs = { decision: seq, last: seq }
  return told(draft, op, body, 'open')
}

export function planOf(draft: Draft): Plan {
  const { plan } = draft
  if (plan !== undefined) return plan
  fail('plan_unknown', `the policy in force has no plan ${draft.account.plan}`, {
    path: '/account',
    remedy: 'move the account to a plan that exists, or publish a policy that has it',
  })
}

/** What bars a request before any limit is looked at. */
export function barredBy(
  draft: Draft,
  plan: Plan,
  op: { readonly feature: string; readonly subject: Subject },
): Reason | undefined {
  if (draft.account.status === 'suspended') return 'account_suspended'
  if (draft.account.status === 'closed') return 'account_closed'
  if (!plan.features.has(op.feature)) return 'feature_not_allowed'
  for (const { dimension, max } of plan.subjects) {
    const value = op.subject[dimension]
    if (value === undefined || draft.subjectExists(dimension, value)) continue
    if ((draft.account.subjectCounts[dimension] ?? 0) >= max) return 'subject_limit'
  }
  return undefined
}

export function newRequest(
  draft: Draft,
  id: string,
  feature: string,
  subject: Subject,
  attributes: Attributes,
): RequestCell {
  return {
    v: CELL_FORMAT,
    id,
    state: 'open',
    createdAt: draft.nowAt,
    expiresAt: null,
    subject,
    feature,
    attributes,
    salt: draft.context.salt,
    meanings: {},
    policyVersion: draft.policy.version,
    step: 0,
    returned: 0,
    refunds: [],
    seqs: {},
  }
}

function refusal(
  draft: Draft,
  op: ReserveOp,
  priced: Priced,
  reason: Reason,
  state: Decided['state'] = 'none',
): Decided {
  return told(draft, op, bodyOf(draft, op, priced, { outcome: 'deny', reason, limits: [] }), state)
}

type Told = Pick<DecisionBody, 'outcome' | 'reason' | 'limits'> &
  Partial<Pick<DecisionBody, 'granted' | 'granted_estimate' | 'from' | 'expires_at'>>
/** What is not there is undefined and left out of the text: to spread it into the body takes longer than all of the rest. */
function bodyOf(draft: Draft, op: ReserveOp, priced: Priced, result: Told): DecisionBody {
  return {
    op: 'reserve',
    feature: op.feature,
    plan: draft.account.plan,
    policy: draft.policy.version,
    outcome: result.outcome,
    reason: result.reason,
    cost: priced.cost,
    granted: result.granted ?? 0,
    estimate: priced.quantities,
    granted_estimate: result.granted_estimate,
    from: result.from ?? [],
    expires_at: result.expires_at ?? null,
    limits: result.limits,
  }
}

function told(
  draft: Draft,
  op: ReserveOp,
  body: DecisionBody,
  state: Decided['state'],
  advice?: Advice,
): Decided {
  return {
    requestId: op.requestId,
    body,
    decidedAt: draft.nowAt,
    subject: op.subject,
    state,
    replayed: false,
    advice,
    dryRun: op.dryRun,
  }
}
