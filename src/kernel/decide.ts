/**
 * May this happen, and who pays: all guards, then the waterfall, read from top to bottom. `decide` looks at cells and
 * changes none of them; what it answers is enough to hold, to explain, and to advise.
 */

import { owed } from '../ledger/books.ts'
import type { LimitLine } from '../ledger/entries.ts'
import { burnOrder, EVERY_FEATURE, type Grant, type Subject, usable } from '../ledger/grants.ts'
import { costOf, type Quantities, type RateLine } from '../ledger/price.ts'
import { wholeText } from '../texts.ts'
import type { Micros, Millis } from '../units.ts'
import { MICROS_PER_UNIT, mulDivFloor } from '../units.ts'
import type { AccountCell, GuardHold, Override, Part, RateState, SubjectCell, WindowState } from './cells.ts'
import {
  type AllowanceSource,
  type BudgetGuard,
  type ConcurrencyGuard,
  type CreditsSource,
  type Guard,
  MAX_CONCURRENCY,
  OVERAGE,
  type OverageSource,
  type Plan,
  type RateGuard,
  rateKey,
  type WindowRule,
} from './plan.ts'
import { rateFreeAt, rateTake, rateView } from './rates.ts'
import { firstReason, type Reason } from './reasons.ts'
import { windowAt } from './windows.ts'

export interface Question {
  readonly nowAt: Millis
  readonly plan: Plan
  readonly feature: string
  readonly subject: Subject
  readonly account: AccountCell
  /** The subject's cells by dimension, for every dimension the plan counts by; empty ones where none exists yet. */
  readonly subjects: Readonly<Record<string, SubjectCell>>
  /** What is asked for: of an extend, the difference. */
  readonly cost: Micros
  /** The least that is welcome; undefined is all or nothing. */
  readonly floor: Micros | undefined
  /** The quantities asked for in all, where the cost was priced from them, and the line that did. */
  readonly quantities: Quantities | undefined
  readonly line: RateLine | undefined
  readonly least: Quantities | undefined
  /** What an extend already holds. It is not asked again for concurrency and requests. */
  readonly base: { readonly cost: Micros; readonly quantities: Quantities | undefined } | undefined
}

export interface Verdict {
  readonly outcome: 'allow' | 'partial' | 'refuse'
  readonly reason: Reason
  readonly granted: Micros
  readonly quantities: Quantities | undefined
  readonly parts: readonly Part[]
  readonly guards: readonly GuardTake[]
  readonly limits: readonly LimitLine[]
  /** Instants at which some guard that refuses would let the whole through: rates as they drain, holds as they must end. */
  readonly freeAt: readonly Millis[]
  /** For advice: whether every guard lets the whole through, the most that would get through now, and what sources have. */
  readonly guardsPass: boolean
  readonly most: Micros
  readonly available: Micros
}

/** What a guard would count, and the rate's state after it. */
export interface GuardTake {
  readonly hold: GuardHold
  readonly next: RateState | undefined
}

/** One guard as it stands before the decision. */
interface GuardState {
  readonly guard: Guard
  readonly limit: number
  readonly used: number
  readonly held: number
  readonly room: number
  /** What the whole request asks of it, in its own unit. */
  readonly asks: number
  readonly resetsAt: Millis | null
  readonly window: WindowState | undefined
  readonly rate: RateState | undefined
}

/** One thing that can pay, as it stands before the decision. */
interface Purse {
  readonly available: Micros
  readonly reason: Reason
  readonly source: string
  readonly by: string | undefined
  readonly windows:
    | readonly {
        readonly key: string
        readonly limit: Micros
        readonly state: WindowState
        readonly open: boolean
      }[]
    | undefined
  readonly grant: Grant | undefined
  readonly step: number
}

/** All guards and sources as they stand, nothing taken: the same numbers that a decision would use. */
export function standing(question: Question): LimitLine[] {
  const guards = question.plan.guards
    .filter(
      (guard) =>
        applies(guard.features, question) &&
        (guard.by === undefined || question.subjects[guard.by] !== undefined),
    )
    .map((guard) => guardState(guard, question))
    .map((state) => guardLine(state, 0, state.used, state.room, state.resetsAt))
  return [...guards, ...sourceLines(question, openPurses(question), [])]
}

export function decide(question: Question): Verdict {
  const { plan, cost } = question
  let reason: Reason | undefined
  let countsPass = true
  let amountCap = cost
  let shareCap = cost
  const guards: GuardState[] = []
  const freeAt: Millis[] = []
  for (const guard of plan.guards) {
    if (!applies(guard.features, question)) continue
    const state = guardState(guard, question)
    guards.push(state)
    if (state.asks <= state.room) continue
    reason = firstReason(reason, refusalOf(state))
    noteFreeAt(state, question, freeAt)
    if (!countsAmount(guard)) countsPass = false
    else if (unitOf(guard) === 'cu') amountCap = Math.min(amountCap, state.room)
    else if (state.room > 0) shareCap = Math.min(shareCap, mulDivFloor(cost, state.room, state.asks))
    else countsPass = false
  }
  const guardsPass = reason === undefined

  const purses = openPurses(question)
  let available = 0
  for (const purse of purses) available = Math.min(cost, available + purse.available)
  if (available < cost) reason = firstReason(reason, shortReason(purses, question))

  const payable = Math.min(amountCap, available)
  const most = countsPass ? Math.min(payable, shareCap) : 0
  if (reason === undefined)
    return grant(question, 'allow', 'granted', cost, question.quantities, guards, purses, most, available)
  const part = countsPass ? fittingPart(question, payable, guards) : undefined
  if (part !== undefined) {
    return grant(
      question,
      'partial',
      'granted_in_part',
      part.cost,
      part.quantities,
      guards,
      purses,
      most,
      available,
    )
  }
  return {
    outcome: 'refuse',
    reason,
    granted: 0,
    quantities: undefined,
    parts: [],
    guards: [],
    limits: [
      ...guards.map((state) => guardLine(state, 0, state.used, state.room, state.resetsAt)),
      ...sourceLines(question, purses, []),
    ],
    freeAt,
    guardsPass,
    most,
    available,
  }
}

/** When a guard that refuses now would let the whole through; windows tell their own ends. */
function noteFreeAt(state: GuardState, question: Question, into: Millis[]): void {
  const { guard } = state
  if (guard.kind === 'rate') {
    const at = rateFreeAt(guard, state.rate, state.asks, question.nowAt)
    if (at !== null) into.push(at)
  } else if (guard.kind === 'concurrency') {
    const ends = (countersOf(question, guard.by).concurrency[guard.name] ?? []).filter(
      (end) => end > question.nowAt,
    )
    const at = ends[state.held - state.limit]
    if (at !== undefined && state.limit > 0) into.push(at)
  }
}

// --- guards

function guardState(guard: Guard, question: Question): GuardState {
  switch (guard.kind) {
    case 'rate':
      return rateState(guard, question)
    case 'concurrency':
      return concurrencyState(guard, question)
    case 'budget':
      return budgetState(guard, question)
  }
}

function rateState(written: RateGuard, question: Question): GuardState {
  const guard = effectiveRate(written, question)
  const rate = countersOf(question, guard.by).rates[rateKey(guard)]
  const view = rateView(guard, rate, question.nowAt)
  const asks = asksOf(guard, question, question.cost, question.quantities)
  return {
    guard,
    limit: guard.limit,
    used: view.used,
    held: 0,
    room: view.available,
    asks,
    resetsAt: view.resetsAt,
    window: undefined,
    rate,
  }
}

function concurrencyState(guard: ConcurrencyGuard, question: Question): GuardState {
  const limit = wholeLimit(guard.name, guard.limit, guard.by, question)
  const held = liveHolds(countersOf(question, guard.by).concurrency[guard.name], question.nowAt)
  const asks = question.base === undefined ? 1 : 0
  return {
    guard,
    limit,
    used: 0,
    held,
    room: Math.max(0, limit - held),
    asks,
    resetsAt: null,
    window: undefined,
    rate: undefined,
  }
}

function budgetState(guard: BudgetGuard, question: Question): GuardState {
  const limit = microsLimit(guard.name, guard.limit, guard.by, question)
  const stored = countersOf(question, guard.by).windows[guard.name]
  const window = windowAt(stored, guard.rule, question.nowAt, question.account)
  const room = Math.max(0, limit - window.used - window.held)
  return {
    guard,
    limit,
    used: window.used,
    held: window.held,
    room,
    asks: question.cost,
    resetsAt: isOpen(guard.rule, stored, window) ? window.endAt : null,
    window,
    rate: undefined,
  }
}

/** Holds past their end do not count, even before they are closed. */
function liveHolds(ends: readonly Millis[] | undefined, nowAt: Millis): number {
  if (ends === undefined) return 0
  let dead = 0
  while (dead < ends.length && (ends[dead] as Millis) <= nowAt) dead++
  return ends.length - dead
}

/** What this decision would count on a rate's meter: of an extend, what is new. */
function asksOf(
  guard: RateGuard,
  question: Question,
  cost: Micros,
  quantities: Quantities | undefined,
): number {
  const { base } = question
  if (base === undefined) return metered(guard, cost, quantities)
  if (guard.meter.kind === 'requests') return 0
  if (guard.meter.kind === 'cost') return cost
  return Math.max(0, metered(guard, 0, quantities) - metered(guard, 0, base.quantities))
}

/** What a use counts on a rate's meter. */
export function metered(guard: RateGuard, cost: Micros, quantities: Quantities | undefined): number {
  switch (guard.meter.kind) {
    case 'requests':
      return 1
    case 'cost':
      return cost
    case 'quantity':
      return quantities?.[guard.meter.quantity] ?? 0
  }
}

/** Whether more is asked for than is held already, by cost or on some rate's meter. */
export function asksMore(question: Question): boolean {
  return (
    question.cost > 0 ||
    question.plan.guards.some(
      (guard) =>
        guard.kind === 'rate' &&
        applies(guard.features, question) &&
        asksOf(guard, question, 0, question.quantities) > 0,
    )
  )
}

function countsAmount(guard: Guard): boolean {
  return guard.kind === 'budget' || (guard.kind === 'rate' && guard.meter.kind !== 'requests')
}

function refusalOf(state: GuardState): Reason {
  if (state.guard.kind === 'concurrency') return 'concurrency_full'
  if (state.guard.kind === 'budget') return 'budget_spent'
  return state.asks > state.guard.capacity ? 'too_large' : 'rate_full'
}

// --- sources

function openPurses(question: Question): Purse[] {
  const purses: Purse[] = []
  const indebted = owed(question.account.books) > 0
  const { waterfall } = question.plan
  for (let step = 0; step < waterfall.length; step++) {
    const source = waterfall[step] as Plan['waterfall'][number]
    if (source.kind === 'allowance') {
      if (!applies(source.features, question)) continue
      if (source.by !== undefined && question.subjects[source.by] === undefined) continue
      purses.push(allowancePurse(source, question, step))
    } else if (source.kind === 'credits') {
      grantPurses(source, question, step, indebted, purses)
    } else {
      purses.push(overagePurse(source, question, step, indebted))
    }
  }
  return purses
}

function allowancePurse(source: AllowanceSource, question: Question, step: number): Purse {
  let available = Number.MAX_SAFE_INTEGER
  const counters = countersOf(question, source.by)
  const windows = source.windows.map((window) => {
    const limit = microsLimit(window.key, window.limit, source.by, question)
    const stored = counters.windows[window.key]
    const state = windowAt(stored, window.rule, question.nowAt, question.account)
    available = Math.min(available, Math.max(0, limit - state.used - state.held))
    return { key: window.key, limit, state, open: isOpen(window.rule, stored, state) }
  })
  return {
    available,
    reason: 'allowance_spent',
    source: source.source,
    by: source.by,
    windows,
    grant: undefined,
    step,
  }
}

function grantPurses(
  source: CreditsSource,
  question: Question,
  step: number,
  indebted: boolean,
  into: Purse[],
): void {
  const before = into.length
  for (const grant of burnOrder(question.account.grants, source.kinds)) {
    if (!usable(grant, question.nowAt, question.feature, question.subject)) continue
    const available = indebted ? 0 : grant.remaining - grant.held
    into.push({
      available,
      reason: 'credits_short',
      source: sourceOf(grant),
      by: undefined,
      windows: undefined,
      grant,
      step,
    })
  }
  // A step without grants still tells that credits are what is short.
  if (into.length === before) {
    const none = { source: '', by: undefined, windows: undefined, grant: undefined }
    into.push({ available: 0, reason: 'credits_short', ...none, step })
  }
}

/** Only a memory of a pure result: grants are asked for again and again, and their sources are written as often. */
const grantSources = new Map<string, string>()
const MAX_SOURCES = 20_000
function sourceOf({ id }: Grant): string {
  let source = grantSources.get(id)
  if (source !== undefined) return source
  source = wholeText(`grant:${id}`)
  if (grantSources.size >= MAX_SOURCES) grantSources.clear()
  grantSources.set(id, source)
  return source
}

function overagePurse(source: OverageSource, question: Question, step: number, indebted: boolean): Purse {
  const limit = microsLimit(OVERAGE, source.limit, undefined, question)
  const stored = question.account.counters.windows[OVERAGE]
  const state = windowAt(stored, source.rule, question.nowAt, question.account)
  const available = indebted ? 0 : Math.max(0, limit - state.used - state.held)
  return {
    available,
    reason: 'overage_spent',
    source: OVERAGE,
    by: undefined,
    windows: [{ key: OVERAGE, limit, state, open: isOpen(source.rule, stored, state) }],
    grant: undefined,
    step,
  }
}

/** A window of first use has no end before something opens it. */
function isOpen(rule: WindowRule, stored: WindowState | undefined, state: WindowState): boolean {
  return rule.anchor !== 'first_use' || stored === state
}

function shortReason(purses: readonly Purse[], question: Question): Reason {
  let reason: Reason | undefined =
    owed(question.account.books) > 0 && purses.some((purse) => !isAllowance(purse)) ? 'in_debt' : undefined
  for (const purse of purses) reason = firstReason(reason, purse.reason)
  return reason ?? 'credits_short'
}

const isAllowance = (purse: Purse): boolean => purse.reason === 'allowance_spent'

/** Takes `amount` from the purses in order. What none of them has is left over. */
function draw(purses: readonly Purse[], amount: Micros): { readonly parts: Part[]; readonly left: Micros } {
  const parts: Part[] = []
  let left = amount
  for (const purse of purses) {
    if (left === 0) break
    const taken = Math.min(left, purse.available)
    if (taken === 0) continue
    left -= taken
    parts.push(partOf(purse, taken))
  }
  return { parts, left }
}

function partOf(purse: Purse, amount: Micros): Part {
  if (purse.windows === undefined) return { source: purse.source, amount }
  const windows = purse.windows.map((window) => [window.key, window.state.startAt] as const)
  return purse.by === undefined
    ? { source: purse.source, amount, windows }
    : { source: purse.source, amount, by: purse.by, windows }
}

/** What the waterfall alone would give of an amount that has already been used: guards no longer matter. */
export function coverage(question: Question): { readonly parts: Part[]; readonly left: Micros } {
  return draw(openPurses(question), question.cost)
}

// --- the answer

function grant(
  question: Question,
  outcome: 'allow' | 'partial',
  reason: Reason,
  granted: Micros,
  quantities: Quantities | undefined,
  guards: readonly GuardState[],
  purses: readonly Purse[],
  most: Micros,
  available: Micros,
): Verdict {
  const { parts } = draw(purses, granted)
  const takes: GuardTake[] = []
  const limits: LimitLine[] = []
  for (const state of guards) limits.push(takeGuard(state, question, granted, quantities, takes))
  sourceLines(question, purses, parts, limits)
  return {
    outcome,
    reason,
    granted,
    quantities,
    parts,
    guards: takes,
    limits,
    freeAt: [],
    guardsPass: outcome === 'allow',
    most,
    available,
  }
}

/** Notes what one guard counts, and answers its line after it. */
function takeGuard(
  state: GuardState,
  question: Question,
  granted: Micros,
  quantities: Quantities | undefined,
  takes: GuardTake[],
): LimitLine {
  const { guard } = state
  if (guard.kind === 'rate') {
    const amount = state.asks === 0 ? 0 : asksOf(guard, question, granted, quantities)
    if (amount === 0) return guardLine(state, 0, state.used, state.room, state.resetsAt)
    const next = rateTake(guard, state.rate, amount, question.nowAt)
    const after = rateView(guard, next, question.nowAt)
    takes.push({ hold: holdOf(guard, amount, question.nowAt), next })
    return guardLine(state, amount, after.used, after.available, after.resetsAt)
  }
  if (guard.kind === 'concurrency') {
    if (state.asks === 0) return guardLine(state, 0, 0, state.room, null)
    takes.push({ hold: holdOf(guard, 1, question.nowAt), next: undefined })
    return guardLine(state, 1, 0, state.room - 1, null)
  }
  if (granted > 0)
    takes.push({ hold: holdOf(guard, granted, (state.window as WindowState).startAt), next: undefined })
  const resetsAt = granted > 0 ? (state.window as WindowState).endAt : state.resetsAt
  return guardLine(state, granted, state.used, Math.max(0, state.room - granted), resetsAt)
}

function holdOf(guard: Guard, amount: number, at: Millis): GuardHold {
  const { kind, by } = guard
  const name = guard.kind === 'rate' ? rateKey(guard) : guard.name
  return by === undefined ? { kind, name, amount, at } : { kind, name, by, amount, at }
}

function guardLine(
  state: GuardState,
  took: number,
  used: number,
  remaining: number,
  resetsAt: Millis | null,
): LimitLine {
  const { guard } = state
  const held = guard.kind === 'rate' ? 0 : state.held + took
  return [
    guard.kind,
    guard.name,
    guard.by ?? null,
    unitOf(guard),
    state.limit,
    used,
    held,
    remaining,
    resetsAt,
    took,
  ]
}

function unitOf(guard: Guard): string {
  if (guard.kind === 'concurrency') return 'holds'
  if (guard.kind === 'budget' || guard.meter.kind === 'cost') return 'cu'
  return guard.meter.kind === 'requests' ? 'requests' : guard.meter.quantity
}

/** A line for each window of an allowance, one for all grants of a credits step, one for overage. */
function sourceLines(
  question: Question,
  purses: readonly Purse[],
  parts: readonly Part[],
  into: LimitLine[] = [],
): LimitLine[] {
  const { waterfall } = question.plan
  let creditsStep = -1
  for (const purse of purses) {
    const source = waterfall[purse.step] as Plan['waterfall'][number]
    if (source.kind === 'credits') {
      if (purse.step !== creditsStep) into.push(creditsLine(source, purses, purse.step, parts))
      creditsStep = purse.step
      continue
    }
    const took = tookFrom(parts, purse.source)
    for (const window of purse.windows ?? []) {
      const { used, held, endAt } = window.state
      const remaining = Math.max(0, window.limit - used - held - took)
      into.push([
        source.kind,
        window.key,
        purse.by ?? null,
        'cu',
        window.limit,
        used,
        held + took,
        remaining,
        window.open || took > 0 ? endAt : null,
        took,
      ])
    }
  }
  return into
}

function tookFrom(parts: readonly Part[], source: string): Micros {
  for (const part of parts) if (part.source === source) return part.amount
  return 0
}

function creditsLine(
  source: CreditsSource,
  purses: readonly Purse[],
  step: number,
  parts: readonly Part[],
): LimitLine {
  let limit = 0
  let held = 0
  let took = 0
  for (const purse of purses) {
    if (purse.step !== step || purse.grant === undefined) continue
    limit += purse.grant.remaining
    held += purse.grant.held
    took += tookFrom(parts, purse.source)
  }
  return ['credits', kindsOf(source), null, 'cu', limit, 0, held + took, limit - held - took, null, took]
}

/** A step's kinds in one word, joined once. */
const joinedKinds = new WeakMap<CreditsSource, string>()
function kindsOf(source: CreditsSource): string {
  let kinds = joinedKinds.get(source)
  if (kinds === undefined) {
    kinds = source.kinds.join('+')
    joinedKinds.set(source, kinds)
  }
  return kinds
}

// --- partial grants

/**
 * The largest part of the request that costs at most `most` and fits under every rate over a quantity, if it is welcome: quantities are scaled from the least that is of use, from
 * what is held already, or from nothing, up to the estimate. What the least names in full stays whole, as the input of a model must.
 */
function fittingPart(
  question: Question,
  most: Micros,
  guards: readonly GuardState[],
): { cost: Micros; quantities: Quantities | undefined } | undefined {
  const { floor, quantities, line, least, base } = question
  const from = least ?? base?.quantities
  // What costs nothing is cut by rates over its quantities alone.
  const isFree = question.cost === 0
  if (floor === undefined || most < floor || (most === 0 && !isFree)) return undefined
  if (quantities === undefined || line === undefined) return { cost: most, quantities: undefined }
  const room = guards.filter((state) => state.guard.kind === 'rate' && state.guard.meter.kind === 'quantity')
  const already = base?.cost ?? 0
  const fits = (share: number): boolean => {
    const scaled = scale(quantities, from, share)
    if (costOf(line, scaled) - already > most) return false
    return room.every((state) => asksOf(state.guard as RateGuard, question, 0, scaled) <= state.room)
  }
  // Prices grow with the share, so halving finds the largest that fits.
  let low = 0
  let high = SHARES
  while (low < high) {
    const middle = Math.ceil((low + high) / 2)
    if (fits(middle)) low = middle
    else high = middle - 1
  }
  const scaled = scale(quantities, from, low)
  const cost = costOf(line, scaled) - already
  if (cost < floor || !fits(low) || !atLeast(scaled, least)) return undefined
  const asksSome = room.some((state) => asksOf(state.guard as RateGuard, question, 0, scaled) > 0)
  if (cost <= 0 && !(isFree && asksSome)) return undefined
  return { cost, quantities: scaled }
}

/** Shares are this fine, so that a quantity of a million units is still cut to the micro-unit: no minimum is missed by rounding. */
const SHARES = 1_000_000_000_000

/** Each quantity `share` of `SHARES` of the way up, down to a whole unit where it was whole, else to a micro-unit. */
function scale(quantities: Quantities, lowest: Quantities | undefined, share: number): Quantities {
  const scaled: Record<string, number> = {}
  for (const [name, value] of Object.entries(quantities)) {
    const from = Math.min(value, lowest?.[name] ?? 0)
    const exact = from + mulDivFloor(value - from, share, SHARES)
    scaled[name] = Math.max(from, value % MICROS_PER_UNIT === 0 ? exact - (exact % MICROS_PER_UNIT) : exact)
  }
  return scaled
}

function atLeast(quantities: Quantities, least: Quantities | undefined): boolean {
  return (
    least === undefined || Object.keys(least).every((name) => (quantities[name] ?? 0) >= (least[name] ?? 0))
  )
}

// --- limits in force

function applies(features: ReadonlySet<string> | undefined, question: Question): boolean {
  return features === undefined || question.feature === EVERY_FEATURE || features.has(question.feature)
}

/** Where a guard's or source's state lives: the account's cell, or the subject's in that dimension. */
function countersOf(question: Question, by: string | undefined): AccountCell['counters'] {
  return by === undefined ? question.account.counters : (question.subjects[by] as SubjectCell).counters
}

function overrideOf(name: string, by: string | undefined, question: Question): Override | undefined {
  const own = by === undefined ? undefined : question.subjects[by]?.overrides[name]
  if (own !== undefined && inForce(own, question.nowAt)) return own
  const common = question.account.overrides[name]
  return common !== undefined && inForce(common, question.nowAt) ? common : undefined
}

export function inForce(override: Override, nowAt: Millis): boolean {
  return override.untilAt === null || nowAt < override.untilAt
}

/** A limit on amounts: overrides replace it as they stand. */
function microsLimit(name: string, written: Micros, by: string | undefined, question: Question): Micros {
  return overrideOf(name, by, question)?.limit ?? written
}

/** A limit on open holds: overrides are kept in millionths, like all amounts, and may be older than the guard. */
function wholeLimit(name: string, written: number, by: string | undefined, question: Question): number {
  const override = overrideOf(name, by, question)
  if (override === undefined) return written
  return Math.min(MAX_CONCURRENCY, Math.floor(override.limit / MICROS_PER_UNIT))
}

/** The rate under its override: a burst that was the limit follows it, one that was written stays. */
export function effectiveRate(
  guard: RateGuard,
  question: Pick<Question, 'nowAt' | 'account' | 'subjects'>,
): RateGuard {
  const override = overrideOf(guard.name, guard.by, question as Question)
  if (override === undefined) return guard
  const limit =
    guard.meter.kind === 'requests' ? Math.floor(override.limit / MICROS_PER_UNIT) : override.limit
  const capacity = guard.capacity === guard.limit ? limit : Math.min(guard.capacity, Math.max(limit, 0))
  return { ...guard, limit, capacity }
}
