/** A verdict becomes a hold: what it took stands as held in the cells, and the request knows where. */
import { assert, present } from '../assert.ts'
import type { Subject } from '../ledger/grants.ts'
import type { Quantities, RateLine } from '../ledger/price.ts'
import { add, type Micros, type Millis } from '../units.ts'
import {
  type AccountCell,
  type Cells,
  type GuardHold,
  type Hold,
  type Key,
  type Part,
  type RequestCell,
  requestKey,
  type SubjectCell,
  subjectKey,
  type WindowRef,
} from './cells.ts'
import { addHoldEnd, addToWindow, namesOf, removeHoldEnd } from './counters.ts'
import type { GuardTake, Question, Verdict } from './decide.ts'
import type { Draft, StepEnv } from './draft.ts'
import { fail } from './faults.ts'
import type { AllowanceSource, Guard, Plan, WindowRule } from './plan.ts'
import { withField } from './records.ts'

export interface Asked {
  readonly feature: string
  readonly subject: Subject
  readonly cost: Micros
  readonly floor?: Micros | undefined
  readonly quantities?: Quantities | undefined
  readonly line?: RateLine | undefined
  readonly least?: Quantities | undefined
  readonly base?: Question['base']
}

/** The question as the account stands at an instant. A dimension that the plan counts by and the subject lacks is a fault. */
export function questionOf(draft: Draft, plan: Plan, asked: Asked, nowAt: Millis): Question {
  requireDimensions(plan, asked.feature, asked.subject)
  return {
    nowAt,
    plan,
    feature: asked.feature,
    subject: asked.subject,
    account: draft.account,
    subjects: subjectCells(draft, plan, asked.subject),
    cost: asked.cost,
    floor: asked.floor,
    quantities: asked.quantities,
    line: asked.line,
    least: asked.least,
    base: asked.base,
  }
}

export function requireDimensions(plan: Plan, feature: string, subject: Subject): void {
  for (const guard of plan.guards) requireDimension(guard, feature, subject)
  for (const source of plan.waterfall)
    if (source.kind === 'allowance') requireDimension(source, feature, subject)
}

function requireDimension(part: Guard | AllowanceSource, feature: string, subject: Subject): void {
  if (part.by === undefined || subject[part.by] !== undefined) return
  if (part.features !== undefined && !part.features.has(feature)) return
  fail('subject_missing', `the plan counts ${part.name} by ${part.by}, and the subject has none`, {
    path: `/subject/${part.by}`,
    remedy: `send subject.${part.by}`,
  })
}

/** The cells of a subject in the dimensions that the plan counts by, as far as the subject has them. */
export function subjectCells(draft: Draft, plan: Plan, subject: Subject): Record<string, SubjectCell> {
  const cells: Record<string, SubjectCell> = {}
  for (const dimension of namesOf(plan).dimensions) {
    const value = subject[dimension]
    if (value !== undefined) cells[dimension] = draft.subject(dimension, value)
  }
  return cells
}

/**
 * The subject's cells that closing or growing a request's hold will ask for and that have not been fetched: named all at
 * once, and before anything is worked out, because a caller seldom names the subject of a request again.
 */
export function missingSubjects(cells: Cells, env: StepEnv, requestId: string): Key[] {
  const account = cells.get('account') as AccountCell | null | undefined
  const request = cells.get(requestKey(requestId)) as RequestCell | null | undefined
  const plan = account ? env.policy.active.plans.get(account.plan) : undefined
  const missing: Key[] = []
  if (request?.state !== 'open' || plan === undefined) return missing
  for (const dimension of namesOf(plan).dimensions) {
    const value = request.subject[dimension]
    if (value !== undefined && !cells.has(subjectKey(dimension, value)))
      missing.push(subjectKey(dimension, value))
  }
  return missing
}

/** A subject that is admitted, or has used something, stands under the plan's bounds from then on. */
export function takePlaces(draft: Draft, plan: Plan, subject: Subject): void {
  for (const dimension of namesOf(plan).dimensions) {
    const value = subject[dimension]
    if (value !== undefined) draft.touch(dimension, value)
  }
}

/** Holds what an admitted request was granted. */
export function takeHold(
  draft: Draft,
  plan: Plan,
  request: RequestCell,
  verdict: Verdict,
  endAt: Millis,
): void {
  const { nowAt, account } = draft
  takePlaces(draft, plan, request.subject)
  for (const part of verdict.parts) holdPart(draft, plan, request.subject, part)
  const guards = verdict.guards.map((take) => holdGuard(draft, plan, request.subject, take, endAt))
  const hold: Hold = {
    reservedAt: nowAt,
    maxEndAt: nowAt + plan.hold.maxLifetimeMs,
    onExpiry: plan.hold.onExpiry,
    granted: verdict.granted,
    estimate: verdict.quantities,
    parts: [...verdict.parts],
    guards,
  }
  request.hold = hold
  request.expiresAt = endAt
  account.openHolds += 1
  noteEnd(draft, endAt)
}

/** Adds what an extend was granted to the hold that stands. */
export function growHold(
  draft: Draft,
  plan: Plan,
  request: RequestCell,
  verdict: Verdict,
  total: Micros,
  quantities: Quantities | undefined,
): void {
  const hold = present(request.hold, 'an open request has a hold')
  for (const part of verdict.parts) holdPart(draft, plan, request.subject, part)
  const added = verdict.guards.map((take) =>
    holdGuard(draft, plan, request.subject, take, request.expiresAt as Millis),
  )
  const grown: Hold = {
    reservedAt: hold.reservedAt,
    maxEndAt: hold.maxEndAt,
    onExpiry: hold.onExpiry,
    granted: total,
    // A step that states a cost says nothing of quantities: those that were estimated stand.
    ...estimateOf(quantities ?? hold.estimate),
    parts: mergeParts(draft, request.subject, [...hold.parts, ...verdict.parts]),
    guards: mergeGuards([...hold.guards, ...added].map((guard) => liveBudget(draft, request.subject, guard))),
  }
  request.hold = grown
}

const estimateOf = (estimate: Quantities | undefined): Pick<Hold, 'estimate'> =>
  estimate === undefined ? {} : { estimate }

/** Moves a hold's end, and with it the end that its concurrency guards know. */
export function moveEnd(draft: Draft, request: RequestCell, endAt: Millis): void {
  const from = present(request.expiresAt, 'an open request has an end')
  if (from === endAt) return
  for (const guard of request.hold?.guards ?? []) {
    if (guard.kind !== 'concurrency') continue
    const counters = draft.counters(guard.by, request.subject)
    removeHoldEnd(counters, guard.name, from)
    addHoldEnd(counters, guard.name, endAt)
  }
  request.expiresAt = endAt
  noteEnd(draft, endAt)
}

function noteEnd(draft: Draft, endAt: Millis): void {
  const { account } = draft
  account.dueAt = account.dueAt === null ? endAt : Math.min(account.dueAt, endAt)
}

function holdPart(draft: Draft, plan: Plan, subject: Subject, part: Part): void {
  if (part.source.startsWith('grant:')) {
    const grant = draft.liveGrant(part.source.slice('grant:'.length))
    assert(grant !== undefined, `${part.source} is not live`)
    grant.held = add(grant.held, part.amount)
    assert(grant.held <= grant.remaining, `${part.source} would hold more than it has`)
    return
  }
  const counters = draft.counters(part.by, subject)
  for (const [key] of part.windows ?? []) {
    addToWindow(counters, key, ruleOf(plan, key), draft.nowAt, draft.account, { held: part.amount })
  }
}

function holdGuard(draft: Draft, plan: Plan, subject: Subject, take: GuardTake, endAt: Millis): GuardHold {
  const { hold, next } = take
  const counters = draft.counters(hold.by, subject)
  if (next !== undefined) counters.rates = withField(counters.rates, hold.name, next)
  else if (hold.kind === 'concurrency') addHoldEnd(counters, hold.name, endAt)
  else
    addToWindow(counters, hold.name, ruleOf(plan, hold.name), draft.nowAt, draft.account, {
      held: hold.amount,
    })
  return hold
}

export function ruleOf(plan: Plan, key: string): WindowRule {
  return present(namesOf(plan).rules.get(key), `plan ${plan.name} has no window ${key}`)
}

/** Instances that have ended are marked by a start of 0, so that a hold that lives through many windows stays small. */
function mergeParts(draft: Draft, subject: Subject, parts: readonly Part[]): Part[] {
  return joinParts(parts.map((part) => withLiveRefs(draft, subject, part)))
}

function withLiveRefs(draft: Draft, subject: Subject, part: Part): Part {
  if (part.windows === undefined) return part
  return { ...part, windows: part.windows.map((ref) => liveRef(draft, subject, part.by, ref)) }
}

/** Joins parts of the same source and window instances, counted by the same dimension, in the order first drawn. */
export function joinParts(parts: readonly Part[]): Part[] {
  const joined: Part[] = []
  for (const part of parts) {
    const same = joined.findIndex(
      (other) =>
        other.source === part.source && other.by === part.by && sameWindows(other.windows, part.windows),
    )
    const other = joined[same]
    if (other === undefined) joined.push(part)
    else joined[same] = { ...other, amount: add(other.amount, part.amount) }
  }
  return joined
}

function liveRef(
  draft: Draft,
  subject: Subject,
  by: string | undefined,
  [key, startAt]: WindowRef,
): WindowRef {
  const state = draft.counters(by, subject).windows[key]
  return state !== undefined && state.startAt === startAt && state.endAt > draft.nowAt
    ? [key, startAt]
    : [key, 0]
}

function liveBudget(draft: Draft, subject: Subject, guard: GuardHold): GuardHold {
  if (guard.kind !== 'budget') return guard
  return { ...guard, at: liveRef(draft, subject, guard.by, [guard.name, guard.at])[1] }
}

function sameWindows(a: readonly WindowRef[] | undefined, b: readonly WindowRef[] | undefined): boolean {
  if (a === undefined || b === undefined) return a === b
  return (
    a.length === b.length &&
    a.every(([key, startAt], place) => b[place]?.[0] === key && b[place]?.[1] === startAt)
  )
}

/** How many admissions of one rate a hold tells apart, so that what goes back is taken from where it counts. More outgrow 1.5 KB. */
const MAX_ADMISSIONS = 4

/** Budgets of the same instance are one; so are a rate's oldest admissions, as if made at the first: too little goes back, never too much. */
function mergeGuards(guards: readonly GuardHold[]): GuardHold[] {
  const merged: GuardHold[] = []
  for (const guard of guards) {
    const same = merged.findIndex((other) => isSamePlace(other, guard))
    const other = merged[same]
    if (other === undefined) merged.push(guard)
    else merged[same] = { ...other, amount: add(other.amount, guard.amount) }
    if (guard.kind === 'rate') mergeOldest(merged, guard)
  }
  return merged
}

const isSamePlace = (a: GuardHold, b: GuardHold): boolean =>
  a.kind === b.kind && a.name === b.name && a.by === b.by && a.at === b.at

function mergeOldest(merged: GuardHold[], { name, by }: GuardHold): void {
  const places = merged.flatMap((one, place) =>
    one.kind === 'rate' && one.name === name && one.by === by ? [place] : [],
  )
  const [first, second] = places
  if (places.length <= MAX_ADMISSIONS || first === undefined || second === undefined) return
  const [oldest, next] = [merged[first] as GuardHold, merged[second] as GuardHold]
  merged[first] = { ...oldest, amount: add(oldest.amount, next.amount) }
  merged.splice(second, 1)
}
