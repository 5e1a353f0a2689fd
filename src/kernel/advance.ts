/**
 * Brings an account to now: holds past their end, grants that start or end, periods that turn, each at its own instant and
 * in the order of the instants. Every step begins with it.
 */

import type { Grant } from '../ledger/grants.ts'
import { price } from '../ledger/price.ts'
import type { Millis } from '../units.ts'
import { bookCharge, bookClosing } from './book.ts'
import type { RequestCell } from './cells.ts'
import { chargeHold, roomToCharge } from './charge.ts'
import { copyAccount, copyRequest, type Draft } from './draft.ts'
import { fail } from './faults.ts'
import { expireGrant, nextRecurrence, recur, repayDebt, startRecurrences } from './grants.ts'

/** How many due holds are fetched at first, and how many when those were not all. */
const DUE_STEPS = [100, 1_000, 10_000, 100_000] as const

export function advance(draft: Draft): void {
  if (draft.account.terms?.policy !== draft.policy.version) beginTerms(draft)
  // The next one stands last: to take the first of twenty thousand would move all others, each time.
  const due = dueHolds(draft).reverse()
  const since = draft.account.lastAt
  const starting = draft.account.grants.filter(
    (grant) => grant.startsAt > since && grant.startsAt <= draft.nowAt,
  )
  for (;;) {
    const next = nextEvent(draft, due, starting)
    if (next === undefined) break
    next.run()
  }
  startRecurrences(draft, draft.nowAt)
}

/**
 * From now on windows may follow other rules. What counted under a name may be forgotten by then, and one that opens under
 * the same name must not be taken for it: it starts after the instant of the change. (Within that one millisecond a window
 * could be dropped and opened again unseen.) The first terms of an account have no past.
 */
export function beginTerms(draft: Draft): void {
  const { account, policy, nowAt } = draft
  account.terms = { policy: policy.version, sinceAt: account.terms === undefined ? 0 : nowAt + 1 }
}

interface Event {
  readonly at: Millis
  readonly run: () => void
}

/** The earliest of what is due; at one instant holds close first, then grants start, end, and recur. */
function nextEvent(draft: Draft, due: RequestCell[], starting: Grant[]): Event | undefined {
  let next: Event | undefined
  const comesNext = (at: Millis): boolean => at <= draft.nowAt && (next === undefined || at < next.at)
  const hold = due.at(-1)
  if (hold !== undefined && comesNext(hold.expiresAt as Millis))
    next = { at: hold.expiresAt as Millis, run: () => expireHold(draft, due.pop() as RequestCell) }
  const start = firstToStart(starting)
  if (start !== undefined && comesNext(start.startsAt)) {
    const run = () => {
      starting.splice(starting.indexOf(start), 1)
      repayDebt(draft, start, { at: start.startsAt })
    }
    next = { at: start.startsAt, run }
  }
  for (const grant of draft.account.grants) {
    const { expiresAt } = grant
    if (grant.ended === undefined && expiresAt !== null && comesNext(expiresAt))
      next = { at: expiresAt, run: () => expireGrant(draft, grant, expiresAt) }
  }
  const recurrence = nextRecurrence(draft)
  if (recurrence !== undefined && comesNext(recurrence.at)) {
    // A hold that closes may be charged to what is there, and a grant that starts repays debt: neither is passed over.
    const quietUntil = Math.min(hold?.expiresAt ?? draft.nowAt, start?.startsAt ?? draft.nowAt)
    next = { at: recurrence.at, run: () => recur(draft, recurrence.key, recurrence.at, quietUntil) }
  }
  return next
}

/** Of those that start at one instant, the first in the list. */
function firstToStart(starting: readonly Grant[]): Grant | undefined {
  let first: Grant | undefined
  for (const grant of starting) if (first === undefined || grant.startsAt < first.startsAt) first = grant
  return first
}

/** The account's holds past their end: all of them, since no request may be refused because of a dead one. */
function dueHolds(draft: Draft): RequestCell[] {
  const { account } = draft
  if (account.dueAt === null || account.dueAt > draft.nowAt) return []
  for (const limit of DUE_STEPS) {
    const found = draft.dueHolds(limit)
    if (found.requests.length === limit && limit !== DUE_STEPS.at(-1)) continue
    account.dueAt = found.nextAt
    // The step's own request may have been changed or closed in this draft; its cell there is the one that counts.
    return found.requests.map(copyRequest)
  }
  return []
}

/** A hold ends by itself: given back, or charged by what was last told of it, as the plan said when it was made. */
function expireHold(draft: Draft, request: RequestCell): void {
  const at = request.expiresAt as Millis
  const hold = request.hold
  if (hold === undefined)
    fail('format_newer', `request ${request.id} is open and has no hold`, {
      remedy: 'run the version of Sluice that wrote it',
    })
  draft.keep(request)
  request.exitBy = 'expiry'
  const charged = hold.onExpiry === 'charge'
  const known = !charged ? 0 : (request.progress?.costMicros ?? hold.granted)
  // Nobody can send a smaller amount in place of an hour that has passed: only as much as still fits is charged.
  const cost = known === 0 ? 0 : Math.min(known, roomToCharge(draft, request))
  const quantities = !charged
    ? {}
    : request.progress === undefined
      ? hold.estimate
      : request.progress.quantities
  const use = { feature: request.feature, subject: request.subject, cost, quantities }
  const spending = chargeHold(draft, request, use, at)
  request.returned = spending.returned
  request.state = charged ? 'expired_charged' : 'expired_released'
  if (!charged) return bookClosing(draft, request, spending, 'expired', at)
  const card = draft.env.policy.at(request.policyVersion)?.features.get(request.feature)?.card
  const priced =
    quantities === undefined || card === undefined ? undefined : price(card, request.attributes, quantities)
  spending.guards.push(...spending.rates)
  bookCharge(draft, request, spending, {
    op: 'expiry',
    cost,
    quantities: quantities ?? {},
    at,
    line: priced?.costMicros === cost ? priced.line : undefined,
    stated: priced?.costMicros !== cost,
    unpriced: priced?.unpriced ?? [],
  })
}

/** The account as it would stand at a later instant, if nothing else happened: a draft that writes nothing. */
export function lookAhead(draft: Draft, at: Millis): Draft {
  const account = copyAccount({ ...draft.account, lastAt: draft.nowAt, dueAt: null })
  const ahead = draft.ahead(account, at)
  const since = draft.nowAt
  const starting = account.grants.filter((grant) => grant.startsAt > since && grant.startsAt <= at)
  for (let next = nextEvent(ahead, [], starting); next !== undefined; next = nextEvent(ahead, [], starting))
    next.run()
  return ahead
}
