/**
 * What was used is charged: within a hold to the hold's own sources in its own order, beyond it down the waterfall in force,
 * and what nothing covers is absorbed up to the plan's bound and owed beyond it. Corrections restore the last source first.
 */
import { assert, present } from '../assert.ts'
import { owed } from '../ledger/books.ts'
import type { Split, WindowMove } from '../ledger/entries.ts'
import type { Grant, Subject } from '../ledger/grants.ts'
import type { Quantities } from '../ledger/price.ts'
import { add, MAX_MICROS, type Micros, type Millis } from '../units.ts'
import type { GuardHold, Hold, Part, RequestCell } from './cells.ts'
import { addToInstance, addToWindow, removeHoldEnd } from './counters.ts'
import { coverage, effectiveRate, metered } from './decide.ts'
import type { Draft, Move } from './draft.ts'
import { issueGrant } from './grants.ts'
import { ruleOf, subjectCells, takePlaces } from './hold.ts'
import { ABSORB, type Plan, type RateGuard, rateKey } from './plan.ts'
import { rateGiveBack, rateTake, rateView } from './rates.ts'
import { withField, withoutField } from './records.ts'
import { windowAt } from './windows.ts'

/** What a charge did, gathered until its entries are written. */
export interface Spending {
  readonly parts: Part[]
  readonly windows: WindowMove[]
  readonly moves: Move[]
  /** Budgets as they were charged, so that a refund finds them. */
  readonly guards: GuardHold[]
  /** What rates count of it, in case a later settle corrects that. */
  rates: readonly GuardHold[]
  /** Given back from the hold to its sources. */
  returned: Micros
}

export const noSpending = (): Spending => ({
  parts: [],
  windows: [],
  moves: [],
  guards: [],
  rates: [],
  returned: 0,
})

export interface Use {
  readonly feature: string
  readonly subject: Subject
  readonly cost: Micros
  /** Undefined where only a cost was told: then quantity meters stay as they were estimated. */
  readonly quantities: Quantities | undefined
}

/** Closes the request's hold at an instant and charges what was used, however much it is. */
export function chargeHold(draft: Draft, request: RequestCell, use: Use, at: Millis): Spending {
  const hold = present(request.hold, 'an open request has a hold')
  const spending = noSpending()
  let left = use.cost
  for (const part of hold.parts) {
    const taken = Math.min(left, part.amount)
    left -= taken
    settlePart(draft, use.subject, part, taken, spending)
  }
  for (const part of hold.parts.toReversed()) endReturned(draft, part, spending)
  spending.returned = add(hold.granted, -Math.min(hold.granted, use.cost))
  settleGuards(draft, request, hold, use, at, spending)
  chargeBeyond(draft, use, left, at, spending)
  request.hold = undefined
  request.expiresAt = null
  draft.account.openHolds -= 1
  if (draft.account.openHolds === 0) draft.account.dueAt = null
  return spending
}

/** The most that a hold may be charged before a sum that counts it would leave the range of amounts. */
export function roomToCharge(draft: Draft, { subject }: RequestCell): Micros {
  const { account, plan } = draft
  const cells = plan === undefined ? [] : Object.values(subjectCells(draft, plan, subject))
  let most = account.books.charged
  for (const { counters } of [account, ...cells])
    for (const { used } of Object.values(counters.windows)) most = Math.max(most, used)
  return MAX_MICROS - most
}

/** Charges what no hold stands for: all guards count it, none refuses it. A request that was admitted once has been counted as one. */
export function chargeUnheld(draft: Draft, use: Use, at: Millis, admitted: boolean): Spending {
  const spending = noSpending()
  const { plan } = draft
  if (plan !== undefined) takePlaces(draft, plan, use.subject)
  for (const guard of plan?.guards ?? []) {
    if (guard.kind !== 'rate' || !counts(guard, use)) continue
    if (admitted && guard.meter.kind === 'requests') continue
    countRate(draft, guard, use.subject, metered(guard, use.cost, use.quantities), at)
  }
  chargeBeyond(draft, use, use.cost, at, spending)
  return spending
}

/** Charges an amount beyond what was held: budgets count it, the waterfall pays what it can, the rest is the shortfall. */
export function chargeBeyond(draft: Draft, use: Use, amount: Micros, at: Millis, spending: Spending): void {
  if (amount === 0) return
  const { plan } = draft
  let left = amount
  if (plan !== undefined) {
    countBudgets(draft, plan, use, amount, at, spending)
    const question = {
      nowAt: at,
      plan,
      feature: use.feature,
      subject: use.subject,
      account: draft.account,
      subjects: subjectCells(draft, plan, use.subject),
      cost: amount,
      floor: undefined,
      quantities: undefined,
      line: undefined,
      least: undefined,
      base: undefined,
    }
    const covered = coverage(question)
    for (const part of covered.parts) spendPart(draft, plan, use.subject, part, at, spending)
    left = absorb(draft, plan, covered.left, at, spending)
  }
  if (left === 0) return
  spending.parts.push({ source: 'debt', amount: left })
  spending.moves.push(draft.move('debt', 'charged', left, 'charge'))
}

// --- within the hold

function settlePart(draft: Draft, subject: Subject, part: Part, taken: Micros, spending: Spending): void {
  if (taken > 0) spending.parts.push({ ...part, amount: taken })
  const grant = grantOf(draft, part.source)
  if (grant !== undefined) {
    grant.held = add(grant.held, -part.amount)
    assert(grant.held >= 0, `grant ${grant.id} would hold less than nothing`)
    if (taken > 0) spending.moves.push(draft.move(`grant:${grant.id}`, 'charged', taken, 'charge'))
    return
  }
  const counters = draft.counters(part.by, subject)
  for (const ref of part.windows ?? []) {
    addToInstance(counters, ref, taken, -part.amount)
    if (taken > 0) spending.windows.push([ref[0], part.by ?? null, ref[1], taken])
  }
  if (part.source === 'overage' && taken > 0)
    spending.moves.push(draft.move('overage', 'charged', taken, 'charge'))
}

/** What returns to a grant that has ended meanwhile ends with it at once. */
function endReturned(draft: Draft, part: Part, spending: Spending): void {
  const grant = grantOf(draft, part.source)
  if (grant?.ended === undefined) return
  const loose = grant.remaining - grant.held
  if (loose > 0) spending.moves.push(draft.move(`grant:${grant.id}`, grant.ended, loose, grant.ended))
}

function grantOf(draft: Draft, source: string): Grant | undefined {
  if (!source.startsWith('grant:')) return undefined
  return present(draft.liveGrant(source.slice('grant:'.length)), `${source} is held and not live`)
}

function settleGuards(
  draft: Draft,
  request: RequestCell,
  hold: Hold,
  use: Use,
  at: Millis,
  spending: Spending,
): void {
  let budgeted = false
  for (const held of hold.guards) {
    const counters = draft.counters(held.by, use.subject)
    if (held.kind === 'concurrency')
      removeHoldEnd(counters, held.name, present(request.expiresAt, 'an open request has an end'))
    if (held.kind === 'budget') budgeted = true
  }
  spending.rates = settleRates(draft, hold.guards, use, at)
  if (!budgeted) return
  // A budget that was extended over two of its windows was filled in that order, and is charged in it.
  const left = new Map<string, Micros>()
  for (const held of hold.guards) {
    if (held.kind !== 'budget') continue
    const taken = Math.min(left.get(held.name) ?? use.cost, held.amount)
    left.set(held.name, (left.get(held.name) ?? use.cost) - taken)
    addToInstance(draft.counters(held.by, use.subject), [held.name, held.at], taken, -held.amount)
    if (taken === 0) continue
    spending.guards.push({ ...held, amount: taken })
    spending.windows.push([held.name, held.by ?? null, held.at, taken])
  }
}

/**
 * Rates over amounts come to what was really used, whatever the estimate said of it: more is counted now, even past the
 * limit; less is taken back from the last admission first, as far as that still counts. Answers what counts from then on.
 */
function settleRates(draft: Draft, admitted: readonly GuardHold[], use: Use, at: Millis): GuardHold[] {
  const counted: GuardHold[] = []
  for (const guard of draft.plan?.guards ?? []) {
    if (guard.kind !== 'rate' || guard.meter.kind === 'requests') continue
    const held = admitted.filter(
      ({ kind, name, by }) => kind === 'rate' && name === rateKey(guard) && by === guard.by,
    )
    if (held.length === 0 && !counts(guard, use)) continue
    if (guard.meter.kind === 'quantity' && use.quantities === undefined) counted.push(...held)
    else counted.push(...settleRate(draft, guard, held, use, at))
  }
  return counted
}

function settleRate(
  draft: Draft,
  guard: RateGuard,
  held: readonly GuardHold[],
  use: Use,
  at: Millis,
): GuardHold[] {
  let over = metered(guard, use.cost, use.quantities)
  for (const { amount } of held) over -= amount
  if (over > 0) {
    // A rate that no longer counts this feature takes back what it had admitted, and counts no more of it.
    if (!counts(guard, use)) return [...held]
    countRate(draft, guard, use.subject, over, at)
    const base = { kind: 'rate', name: rateKey(guard), amount: over, at } as const
    return [...held, guard.by === undefined ? base : { ...base, by: guard.by }]
  }
  const kept: GuardHold[] = []
  for (const one of held.toReversed()) {
    const back = Math.min(-over, one.amount)
    over += back
    if (back > 0) giveBackRate(draft, guard, use.subject, back, one.at, at)
    if (back < one.amount) kept.unshift({ ...one, amount: one.amount - back })
  }
  return kept
}

function giveBackRate(
  draft: Draft,
  guard: RateGuard,
  subject: Subject,
  amount: number,
  takenAt: Millis,
  at: Millis,
): void {
  const counters = draft.counters(guard.by, subject)
  const effective = effectiveRate(guard, rateQuestion(draft, guard, subject, at))
  const key = rateKey(guard)
  const next = rateGiveBack(effective, counters.rates[key], amount, takenAt, at)
  counters.rates =
    next === undefined ? withoutField(counters.rates, key) : withField(counters.rates, key, next)
}

/** Brings the rates that counted a hold which ended by itself to what was really used. */
export function correctRates(draft: Draft, request: RequestCell, use: Use, at: Millis): void {
  const charge = present(request.charge, 'only a charged request can be corrected')
  settleRates(draft, charge.guards, use, at)
  request.charge = { ...charge, guards: charge.guards.filter(({ kind }) => kind !== 'rate') }
}

// --- beyond the hold

function countRate(draft: Draft, guard: RateGuard, subject: Subject, amount: number, at: Millis): void {
  if (amount === 0) return
  const counters = draft.counters(guard.by, subject)
  const effective = effectiveRate(guard, rateQuestion(draft, guard, subject, at))
  const key = rateKey(guard)
  const state = counters.rates[key]
  // A rate that counts as much as can be counted is full all the same: what has happened is never refused for it.
  const counted = Math.min(amount, MAX_MICROS - rateView(effective, state, at).used)
  counters.rates = withField(counters.rates, key, rateTake(effective, state, counted, at))
}

function rateQuestion(draft: Draft, guard: RateGuard, subject: Subject, nowAt: Millis) {
  const subjects =
    guard.by === undefined ? {} : { [guard.by]: draft.subject(guard.by, subject[guard.by] as string) }
  return { nowAt, account: draft.account, subjects }
}

function counts(guard: Plan['guards'][number], use: Use): boolean {
  if (guard.features !== undefined && !guard.features.has(use.feature)) return false
  return guard.by === undefined || use.subject[guard.by] !== undefined
}

function countBudgets(
  draft: Draft,
  plan: Plan,
  use: Use,
  amount: Micros,
  at: Millis,
  spending: Spending,
): void {
  for (const guard of plan.guards) {
    if (guard.kind !== 'budget' || !counts(guard, use)) continue
    const counters = draft.counters(guard.by, use.subject)
    const window = addToWindow(counters, guard.name, guard.rule, at, draft.account, { used: amount })
    const base = { kind: 'budget', name: guard.name, amount, at: window.startAt } as const
    spending.guards.push(guard.by === undefined ? base : { ...base, by: guard.by })
    spending.windows.push([guard.name, guard.by ?? null, window.startAt, amount])
  }
}

function spendPart(
  draft: Draft,
  plan: Plan,
  subject: Subject,
  part: Part,
  at: Millis,
  spending: Spending,
): void {
  spending.parts.push(part)
  if (part.source.startsWith('grant:')) {
    spending.moves.push(draft.move(part.source as `grant:${string}`, 'charged', part.amount, 'charge'))
    return
  }
  const counters = draft.counters(part.by, subject)
  for (const [key, startAt] of part.windows ?? []) {
    addToWindow(counters, key, ruleOf(plan, key), at, draft.account, { used: part.amount })
    spending.windows.push([key, part.by ?? null, startAt, part.amount])
  }
  if (part.source === 'overage') spending.moves.push(draft.move('overage', 'charged', part.amount, 'charge'))
}

/** The house bears a shortfall up to the plan's bound; answers what is left of it. */
function absorb(draft: Draft, plan: Plan, shortfall: Micros, at: Millis, spending: Spending): Micros {
  if (shortfall === 0 || plan.shortfall === undefined) return shortfall
  const { absorbMicros, rule } = plan.shortfall
  const { counters } = draft.account
  const window = windowAt(counters.windows[ABSORB], rule, at, draft.account)
  const taken = Math.min(shortfall, Math.max(0, absorbMicros - window.used))
  if (taken === 0) return shortfall
  addToWindow(counters, ABSORB, rule, at, draft.account, { used: taken })
  spending.parts.push({ source: 'absorbed', amount: taken, windows: [[ABSORB, window.startAt]] })
  spending.windows.push([ABSORB, null, window.startAt, taken])
  spending.moves.push(draft.move('absorbed', 'charged', taken, 'charge'))
  return shortfall - taken
}

// --- corrections

/** Gives back an amount of what was charged, the last source first. Answers the negative parts, in the order restored. */
export function restore(draft: Draft, request: RequestCell, amount: Micros, creditId: string): Spending {
  const charge = present(request.charge, 'only a charged request can be corrected')
  assert(amount <= charge.cost, `${amount} is more than was charged`)
  const spending = noSpending()
  let left = amount
  const kept: Part[] = []
  for (const part of charge.parts.toReversed()) {
    const back = Math.min(left, part.amount)
    left -= back
    if (back < part.amount) kept.unshift({ ...part, amount: part.amount - back })
    if (back > 0) restorePart(draft, request.subject, part, back, creditId, spending)
  }
  const guards = restoreBudgets(draft, request, amount, spending)
  request.charge = { ...charge, cost: charge.cost - amount, parts: kept, guards }
  return spending
}

function restorePart(
  draft: Draft,
  subject: Subject,
  part: Part,
  back: Micros,
  creditId: string,
  spending: Spending,
): void {
  spending.parts.push({ ...part, amount: -back })
  if (part.source.startsWith('grant:'))
    return restoreGrant(draft, part.source.slice('grant:'.length), back, spending)
  if (part.source === 'debt') return restoreDebt(draft, back, creditId, spending)
  restoreWindows(draft, subject, part, back, spending)
  if (part.source === 'overage' || part.source === 'absorbed') {
    spending.moves.push(draft.move('charged', part.source, back, 'refund'))
  }
}

function restoreWindows(draft: Draft, subject: Subject, part: Part, back: Micros, spending: Spending): void {
  const counters = draft.counters(part.by, subject)
  for (const ref of part.windows ?? []) {
    addToInstance(counters, ref, -back, 0)
    spending.windows.push([ref[0], part.by ?? null, ref[1], -back])
  }
}

/** A grant gets it back, also one that had been used up and left the cell; one that has ended lets it go at once. */
function restoreGrant(draft: Draft, id: string, back: Micros, spending: Spending): void {
  const grant = draft.liveGrant(id) ?? revive(draft, id)
  spending.moves.push(draft.move('charged', `grant:${id}`, back, 'refund'))
  if (grant.ended !== undefined)
    spending.moves.push(draft.move(`grant:${id}`, grant.ended, back, grant.ended))
}

function revive(draft: Draft, id: string): Grant {
  const cell = present(draft.grantCell(id), `grant ${id} was issued`)
  const grant: Grant = { ...cell.grant, remaining: 0, held: 0 }
  if (cell.revokedSeq !== undefined) grant.ended = 'revoked'
  else if (grant.expiresAt !== null && grant.expiresAt <= draft.nowAt) grant.ended = 'expired'
  draft.account.grants.push(grant)
  return grant
}

/** Debt that is still owed is forgiven; what a grant has repaid meanwhile comes back as a grant of its own. */
function restoreDebt(draft: Draft, back: Micros, creditId: string, spending: Spending): void {
  const forgiven = Math.min(back, owed(draft.account.books))
  if (forgiven > 0) spending.moves.push(draft.move('charged', 'debt', forgiven, 'refund'))
  if (forgiven === back) return
  const terms = {
    id: creditId,
    kind: 'adjustment',
    amount: back - forgiven,
    startsAt: draft.nowAt,
    expiresAt: null,
  } as const
  issueGrant(draft, terms, { from: null, reason: 'debt already repaid' })
  spending.moves.push(draft.move('charged', `grant:${creditId}`, back - forgiven, 'refund'))
}

function restoreBudgets(draft: Draft, request: RequestCell, amount: Micros, spending: Spending): GuardHold[] {
  const kept: GuardHold[] = []
  const left = new Map<string, Micros>()
  for (const guard of present(request.charge, 'charged').guards.toReversed()) {
    if (guard.kind !== 'budget') {
      kept.unshift(guard)
      continue
    }
    const open = left.get(guard.name) ?? amount
    const back = Math.min(open, guard.amount)
    left.set(guard.name, open - back)
    if (back < guard.amount) kept.unshift({ ...guard, amount: guard.amount - back })
    if (back === 0) continue
    addToInstance(draft.counters(guard.by, request.subject), [guard.name, guard.at], -back, 0)
    spending.windows.push([guard.name, guard.by ?? null, guard.at, -back])
  }
  return kept
}

/** Parts by source, in the order first drawn: a source that paid within the hold and beyond it is told once. */
export function splitOf(parts: readonly Part[]): Split {
  const [only] = parts
  // In most cases; a list that begins empty takes room for 17.
  if (only !== undefined && parts.length === 1) return [[only.source, only.amount]]
  const split: [source: string, amount: Micros][] = []
  for (const { source, amount } of parts) {
    const same = split.find((share) => share[0] === source)
    if (same === undefined) split.push([source, amount])
    else same[1] = add(same[1], amount)
  }
  return split
}
