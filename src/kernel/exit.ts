/** How a request ends: settled, recorded, released; and how a charge is corrected. The table of the design, section 6. */

import type { ChargeEntry } from '../ledger/entries.ts'
import type { Subject } from '../ledger/grants.ts'
import { type Attributes, price, type Quantities } from '../ledger/price.ts'
import { add, formatMicros, type Micros, type Millis } from '../units.ts'
import { openAccount } from './account.ts'
import { advance } from './advance.ts'
import {
  type Charged,
  chargedBefore,
  chargedFrom,
  decidedBefore,
  type Refunded,
  type Released,
} from './answers.ts'
import { type Bill, bookCharge, bookClosing } from './book.ts'
import type { Cells, Charged as Charge, RequestCell } from './cells.ts'
import {
  chargeBeyond,
  chargeHold,
  chargeUnheld,
  correctRates,
  noSpending,
  restore,
  splitOf,
  type Use,
} from './charge.ts'
import {
  CLOCK_TOLERANCE_MS,
  type Context,
  copyRequest,
  type Draft,
  onAccount,
  type StepEnv,
  type StepOutcome,
} from './draft.ts'
import { fail, type Reply } from './faults.ts'
import { missingSubjects } from './hold.ts'
import { meaningHash, requireOwn, requireSameMeaning } from './meaning.ts'
import { featureOf } from './pricing.ts'
import { newRequest } from './reserve.ts'

export interface UseOp {
  readonly by: 'settle' | 'record'
  readonly account: string
  readonly requestId: string
  readonly subject: Subject | undefined
  readonly feature: string | undefined
  readonly attributes: Attributes | undefined
  readonly used: { readonly quantities: Quantities } | { readonly costMicros: Micros }
  readonly at: Millis | undefined
  readonly endpoint: string | undefined
  readonly startedAt: Millis | undefined
  readonly durationMs: Millis | undefined
  /** What was used was counted, and not told by what did the work. */
  readonly estimated: boolean
  /** Ids are protected this long: older instants are refused. */
  readonly horizonMs: Millis
  readonly meaning: string
}

/** Settle and record: the truth is charged, once. */
export function use(cells: Cells, env: StepEnv, context: Context, op: UseOp): StepOutcome<Reply<Charged>> {
  const missing = missingSubjects(cells, env, op.requestId)
  if (missing.length > 0) return { need: missing }
  return onAccount(
    cells,
    env,
    context,
    op.account,
    (draft) => {
      advance(draft)
      const known = draft.request(op.requestId)
      if (known !== null) requireOwn(draft, known)
      const before = known === null ? undefined : again(draft, known, op)
      if (before !== undefined) return { result: before, keep: false }
      requireRecent(draft, op)
      if (known === null) return { result: chargeNew(draft, op, undefined), keep: true }
      const request = copyRequest(known)
      switch (known.state) {
        case 'open':
          return { result: chargeOpen(draft, request, op), keep: true }
        case 'released':
        case 'expired_released':
          return { result: chargeNew(draft, op, request), keep: true }
        case 'expired_charged':
          return { result: chargeDifference(draft, request, op), keep: true }
        case 'settled':
        case 'recorded':
          return conflict(draft, known)
      }
    },
    () => openAccount(env, context, op.account),
  )
}

/**
 * The call that closed it, repeated with the same meaning. Whom and what it was for may be left out by one caller and named
 * by another: they are compared as what they come to.
 */
function again(draft: Draft, known: RequestCell, op: UseOp): Charged | undefined {
  if (known.state !== 'settled' && known.state !== 'recorded') return undefined
  if (known.exitBy !== op.by) return conflict(draft, known)
  const first = chargedBefore(draft, known)
  const subject = known.seqs.decision === undefined ? subjectOf(draft, op) : op.subject
  requireSame(known, { feature: op.feature, subject }, () => first)
  requireSameMeaning(draft, known, known.meanings.exit, op.meaning, first)
  return first
}

/** Whose usage it is that no reserve told of: a key that stands for someone need not name them. */
const subjectOf = (draft: Draft, op: UseOp): Subject => ({ ...draft.context.subject, ...op.subject })

function conflict(draft: Draft, known: RequestCell): never {
  fail('conflict', `request ${known.id} is ${known.state} already`, {
    path: '/request_id',
    remedy: 'use a new request_id for new work, or refund what was charged',
    first: chargedBefore(draft, known),
  })
}

function requireRecent(draft: Draft, op: UseOp): void {
  for (const [path, at] of [
    ['/at', op.at],
    ['/started_at', op.startedAt],
  ] as const) {
    if (at === undefined) continue
    if (at > draft.nowAt + CLOCK_TOLERANCE_MS) {
      fail('invalid', `${path.slice(1)} lies in the future`, {
        path,
        remedy: 'send the instant at which it happened',
      })
    }
    if (at >= draft.nowAt - op.horizonMs) continue
    fail('too_old', `${path.slice(1)} lies more than ${Math.round(op.horizonMs / 86_400_000)} days back`, {
      path,
      remedy: 'send it within the horizon, or correct the account with an adjustment grant',
    })
  }
}

/** Usage that no hold stands for: at the price of now, or of its reserve if it had one. */
function chargeNew(draft: Draft, op: UseOp, released: RequestCell | undefined): Charged {
  const feature = op.feature ?? (released?.seqs.decision === undefined ? undefined : released.feature)
  if (feature === undefined) {
    fail('request_unknown', `account ${op.account} has no request ${op.requestId}`, {
      path: '/request_id',
      remedy: 'name the feature to charge it all the same',
    })
  }
  if (released?.seqs.decision !== undefined) requireReserved(draft, released, op)
  else featureOf(draft.policy, feature)
  const request =
    released?.seqs.decision === undefined
      ? {
          ...newRequest(draft, op.requestId, feature, subjectOf(draft, op), op.attributes ?? {}),
          seqs: { ...released?.seqs },
        }
      : released
  if (op.attributes !== undefined) request.attributes = op.attributes
  draft.keep(request)
  const bill = billOf(draft, request, op)
  const admitted = request.seqs.decision !== undefined
  const spending = chargeUnheld(draft, useOf(request, bill, op), draft.nowAt, admitted)
  request.state = admitted ? 'settled' : 'recorded'
  return close(draft, request, op, spending, bill)
}

function chargeOpen(draft: Draft, request: RequestCell, op: UseOp): Charged {
  requireReserved(draft, request, op)
  draft.keep(request)
  if (op.attributes !== undefined) request.attributes = op.attributes
  const bill = billOf(draft, request, op)
  const spending = chargeHold(draft, request, useOf(request, bill, op), draft.nowAt)
  request.returned = spending.returned
  request.state = 'settled'
  return close(draft, request, op, spending, bill)
}

/** The hold ended by itself and was charged by what was known: only the difference is charged, or given back. */
function chargeDifference(draft: Draft, request: RequestCell, op: UseOp): Charged {
  requireReserved(draft, request, op)
  draft.keep(request)
  if (op.attributes !== undefined) request.attributes = op.attributes
  const bill = billOf(draft, request, op)
  correctRates(draft, request, useOf(request, bill, op), draft.nowAt)
  const charge = request.charge as Charge
  const difference = add(bill.cost, -add(charge.cost, charge.refunded))
  const corrected = { ...bill, corrects: { seq: charge.seq, difference } }
  request.state = 'settled'
  if (difference < 0) {
    const spending = restore(draft, request, Math.min(-difference, charge.cost), creditId(draft, request))
    return close(draft, request, op, spending, {
      ...corrected,
      corrects: { seq: charge.seq, difference: -Math.min(-difference, charge.cost) },
    })
  }
  const spending = noSpending()
  chargeBeyond(draft, useOf(request, bill, op), difference, draft.nowAt, spending)
  return close(draft, request, op, spending, corrected)
}

/** A settle that names subject or feature must name those it was reserved under; attributes may differ. */
function requireReserved(draft: Draft, request: RequestCell, op: UseOp): void {
  const { decision } = request.seqs
  requireSame(request, op, () =>
    decision === undefined ? undefined : decidedBefore(draft, request, decision),
  )
}

function requireSame(
  request: RequestCell,
  named: Pick<UseOp, 'feature' | 'subject'>,
  first: () => unknown,
): void {
  if (named.feature !== undefined && named.feature !== request.feature) {
    fail('conflict', `request ${request.id} is for ${request.feature}`, {
      path: '/feature',
      remedy: 'leave feature out, or name that one',
      first: first(),
    })
  }
  if (named.subject === undefined || request.salt === '') return
  const same = Object.keys({ ...named.subject, ...request.subject }).every(
    (dimension) => named.subject?.[dimension] === request.subject[dimension],
  )
  if (!same)
    fail('conflict', `request ${request.id} is another subject’s`, {
      path: '/subject',
      remedy: 'name the subject it was for; of a request that was reserved it may be left out',
      first: first(),
    })
}

function billOf(draft: Draft, request: RequestCell, op: UseOp): Bill {
  const told = {
    op: op.by,
    at: op.at,
    endpoint: op.endpoint,
    startedAt: op.startedAt,
    durationMs: op.durationMs,
    estimated: op.estimated,
  }
  if ('costMicros' in op.used) {
    return { ...told, cost: op.used.costMicros, quantities: {}, line: undefined, stated: true, unpriced: [] }
  }
  const { quantities } = op.used
  const policy = draft.env.policy.at(request.policyVersion)
  const card = policy?.features.get(request.feature)?.card
  if (card === undefined)
    fail('feature_unknown', `policy ${request.policyVersion} has no feature ${request.feature}`, {
      path: '/feature',
      remedy: 'give a cost in place of quantities',
    })
  const { costMicros, line, unpriced } = price(card, request.attributes, quantities)
  return { ...told, cost: costMicros, quantities, line, stated: false, unpriced }
}

function useOf(request: RequestCell, bill: Bill, op: UseOp): Use {
  const quantities = 'costMicros' in op.used ? undefined : bill.quantities
  return { feature: request.feature, subject: request.subject, cost: bill.cost, quantities }
}

function close(
  draft: Draft,
  request: RequestCell,
  op: UseOp,
  spending: ReturnType<typeof noSpending>,
  bill: Bill,
): Charged {
  request.exitBy = op.by
  request.meanings.exit = meaningHash(draft, request.salt, op.meaning)
  bookCharge(draft, request, spending, bill)
  // A settle that corrects what a hold's end charged tells what covers the use in all, as ever.
  const whole = bill.corrects === undefined ? spending.parts : (request.charge?.parts ?? [])
  const cover = splitOf(whole)
  return chargedFrom(
    request,
    { cost: bill.cost, cover, returned: spending.returned, unpriced: bill.unpriced },
    false,
  )
}

export interface ReleaseOp {
  readonly account: string
  readonly requestId: string
  readonly reason: string | undefined
}

/** Release: the hold goes back. Of an unknown request it is remembered, so that a reserve that comes later is refused. */
export function release(
  cells: Cells,
  env: StepEnv,
  context: Context,
  op: ReleaseOp,
): StepOutcome<Reply<Released>> {
  const missing = missingSubjects(cells, env, op.requestId)
  if (missing.length > 0) return { need: missing }
  return onAccount(cells, env, context, op.account, (draft) => {
    advance(draft)
    const known = draft.request(op.requestId)
    if (known !== null) requireOwn(draft, known)
    if (known !== null && known.state !== 'open') return { result: releasedFrom(known, true), keep: false }
    const request = draft.keep(
      known === null ? newRequest(draft, op.requestId, '', {}, {}) : copyRequest(known),
    )
    const nothing = { feature: request.feature, subject: request.subject, cost: 0, quantities: {} }
    const spending = known === null ? noSpending() : chargeHold(draft, request, nothing, draft.nowAt)
    request.state = 'released'
    request.exitBy = 'release'
    request.returned = spending.returned
    bookClosing(draft, request, spending, 'released', draft.nowAt, op.reason)
    return { result: releasedFrom(request, false), keep: true }
  })
}

function releasedFrom(request: RequestCell, replayed: boolean): Released {
  return { requestId: request.id, state: request.state, returned: request.returned, replayed }
}

export interface RefundOp {
  readonly account: string
  readonly requestId: string
  readonly refundId: string
  readonly back: { readonly amountMicros: Micros } | { readonly quantities: Quantities } | 'all'
  readonly reason: string
  readonly meaning: string
}

/** The most refunds one request keeps. */
export const MAX_REFUNDS = 64

/** Refund: a correcting charge with negative cover, the last source restored first, never more than stands charged. */
export function refund(
  cells: Cells,
  env: StepEnv,
  context: Context,
  op: RefundOp,
): StepOutcome<Reply<Refunded>> {
  return onAccount(cells, env, context, op.account, (draft) => {
    advance(draft)
    const known = draft.request(op.requestId)
    if (known === null)
      fail('request_unknown', `account ${op.account} has no request ${op.requestId}`, {
        path: '/request_id',
        remedy: 'name a request that was charged in this account',
      })
    requireOwn(draft, known)
    const earlier = known.refunds.find(([id]) => id === op.refundId)
    if (earlier !== undefined) {
      const first = refundedFrom(known, op.refundId, draft.entry(earlier[1]).entry as ChargeEntry, true)
      requireSameMeaning(draft, known, earlier[2], op.meaning, first)
      return { result: first, keep: false }
    }
    if (known.charge === undefined)
      fail('invalid', `request ${op.requestId} is ${known.state}: nothing was charged`, {
        path: '/request_id',
        remedy: 'refund a charged request',
      })
    if (known.refunds.length >= MAX_REFUNDS)
      fail('too_many', `request ${op.requestId} has ${MAX_REFUNDS} refunds`, {
        path: '/refund_id',
        remedy: 'issue an adjustment grant instead',
      })
    const request = draft.keep(copyRequest(known))
    return { result: giveBack(draft, request, op), keep: true }
  })
}

function giveBack(draft: Draft, request: RequestCell, op: RefundOp): Refunded {
  const charge = request.charge as Charge
  const amount = refundAmount(draft, request, charge, op)
  const spending = restore(draft, request, amount, creditId(draft, request, op.refundId))
  const entry = {
    usage: charge.usageSeq,
    policy: request.policyVersion,
    stated: true as const,
    cost: amount === 0 ? 0 : -amount,
    cover: splitOf(spending.parts),
    windows: spending.windows,
    corrects: charge.seq,
    total: add(charge.cost, -amount),
    refund: op.refundId,
    reason: op.reason,
  }
  const seq = draft.append('charge', entry, { request: request.id, previous: request.seqs.last })
  draft.book(spending.moves, { request: request.id, previous: seq, charge: seq })
  request.seqs.last = seq
  request.charge = { ...(request.charge as Charge), refunded: add(charge.refunded, amount) }
  request.refunds = [...request.refunds, [op.refundId, seq, meaningHash(draft, request.salt, op.meaning)]]
  return refundedFrom(request, op.refundId, entry, false)
}

/** A grant that a refund makes of debt already repaid: no two refunds share its id, whatever colons their own ids have. */
function creditId(draft: Draft, { id }: RequestCell, refundId?: string): string {
  const request = id.replaceAll('%', '%25').replaceAll(':', '%3A')
  const name = refundId === undefined ? request : `${request}:${refundId}`
  // No name begins with a colon, so that no request's own is taken for a hash.
  return `refund:${name.length <= MAX_CREDIT_NAME ? name : `:${draft.context.sha256(name)}`}`
}
/** So that `refund:` and this are an id as any other. */
const MAX_CREDIT_NAME = 128 - 'refund:'.length

function refundAmount(draft: Draft, request: RequestCell, charge: Charge, op: RefundOp): Micros {
  if (op.back === 'all') return charge.cost
  if ('amountMicros' in op.back) {
    if (op.back.amountMicros <= charge.cost) return op.back.amountMicros
    fail('invalid', 'a refund never gives back more than stands charged', {
      path: '/amount',
      remedy: `at most ${formatMicros(charge.cost)} CU can go back`,
    })
  }
  const card = draft.env.policy.at(request.policyVersion)?.features.get(request.feature)?.card
  if (card === undefined)
    fail('feature_unknown', `policy ${request.policyVersion} has no feature ${request.feature}`, {
      path: '/usage',
      remedy: 'give the amount to refund in place of usage',
    })
  const { costMicros: cost, unpriced } = price(card, request.attributes, op.back.quantities)
  const [name] = unpriced
  // A mistyped name would cost nothing, and all that was charged would go back.
  if (name !== undefined)
    fail('price_missing', `the rate card of ${request.feature} has no price for ${name} here`, {
      path: `/usage/${name}`,
      remedy: 'leave it out, or give the amount to refund in place of usage',
    })
  if (cost > charge.cost)
    fail('invalid', 'this usage would cost more than stands charged', {
      path: '/usage',
      remedy: 'record the additional usage under a new request_id',
    })
  return charge.cost - cost
}

function refundedFrom(
  request: RequestCell,
  refundId: string,
  entry: Pick<ChargeEntry, 'cost' | 'cover' | 'total'>,
  replayed: boolean,
): Refunded {
  const to = entry.cover.map(([source, amount]) => [source, -amount] as const)
  return {
    requestId: request.id,
    refundId,
    refunded: entry.cost === 0 ? 0 : -entry.cost,
    to,
    charged: entry.total ?? 0,
    replayed,
  }
}
