/** How the states of windows, rates and concurrency change inside their cell. States are replaced, never changed. */
import { AssertionError, assert } from '../assert.ts'
import { add, type Micros, type Millis } from '../units.ts'
import type { Counters, WindowRef, WindowState } from './cells.ts'
import {
  ABSORB,
  type Guard,
  OVERAGE,
  type Plan,
  type RateGuard,
  type RecurringGrant,
  rateKey,
  type WindowRule,
} from './plan.ts'
import { withField, withoutField } from './records.ts'
import { type Frame, windowAt } from './windows.ts'

/** What a plan keeps state for, looked up by name. */
export interface PlanNames {
  readonly rules: ReadonlyMap<string, WindowRule>
  readonly guards: ReadonlyMap<string, Guard>
  /** By what their state is kept under. */
  readonly rates: ReadonlyMap<string, RateGuard>
  /** Recurring grants under the key of their state, `<plan>/<grant>`. */
  readonly recurring: ReadonlyMap<string, RecurringGrant>
  /** Dimensions that some guard, allowance or bound counts by. */
  readonly dimensions: readonly string[]
}
const names = new WeakMap<Plan, PlanNames>()

export function namesOf(plan: Plan): PlanNames {
  const known = names.get(plan)
  if (known !== undefined) return known
  const rules = new Map<string, WindowRule>()
  const guards = new Map<string, Guard>()
  const rates = new Map<string, RateGuard>()
  const dimensions = new Set(plan.subjects.map((bound) => bound.dimension))
  for (const guard of plan.guards) {
    guards.set(guard.name, guard)
    if (guard.kind === 'rate') rates.set(rateKey(guard), guard)
    if (guard.kind === 'budget') rules.set(guard.name, guard.rule)
    if (guard.by !== undefined) dimensions.add(guard.by)
  }
  for (const source of plan.waterfall) {
    if (source.kind === 'overage') rules.set(OVERAGE, source.rule)
    if (source.kind !== 'allowance') continue
    for (const window of source.windows) rules.set(window.key, window.rule)
    if (source.by !== undefined) dimensions.add(source.by)
  }
  if (plan.shortfall !== undefined) rules.set(ABSORB, plan.shortfall.rule)
  const recurring = new Map(plan.grants.map((grant) => [`${plan.name}/${grant.name}`, grant]))
  const made = { rules, guards, rates, recurring, dimensions: [...dimensions] }
  names.set(plan, made)
  return made
}

/** Adds to the window in force at an instant, opening it where none is; answers the instance it stands in. */
export function addToWindow(
  counters: Counters,
  key: string,
  rule: WindowRule,
  atMs: Millis,
  frame: Frame,
  delta: { readonly used?: Micros; readonly held?: Micros },
): WindowState {
  const window = windowAt(counters.windows[key], rule, atMs, frame)
  return putWindow(counters, key, window, delta.used ?? 0, delta.held ?? 0)
}

/** Adds to one instance of a window, where it still stands; an instance that has been replaced needs nothing. */
export function addToInstance(
  counters: Counters,
  [key, startAt]: WindowRef,
  used: Micros,
  held: Micros,
): void {
  const window = counters.windows[key]
  if (window !== undefined && window.startAt === startAt) putWindow(counters, key, window, used, held)
}

function putWindow(
  counters: Counters,
  key: string,
  window: WindowState,
  used: Micros,
  held: Micros,
): WindowState {
  const next = {
    startAt: window.startAt,
    endAt: window.endAt,
    used: add(window.used, used),
    held: add(window.held, held),
  }
  // Not `assert`, which would make the message each time.
  if (next.used < 0 || next.held < 0) throw new AssertionError(`window ${key} would count below zero`)
  counters.windows = withField(counters.windows, key, next)
  return next
}

export function addHoldEnd(counters: Counters, guard: string, endAt: Millis): void {
  const ends = counters.concurrency[guard] ?? []
  const place = ends.findLastIndex((other) => other <= endAt) + 1
  counters.concurrency = withField(counters.concurrency, guard, ends.toSpliced(place, 0, endAt))
}

export function removeHoldEnd(counters: Counters, guard: string, endAt: Millis): void {
  const ends = counters.concurrency[guard] ?? []
  const place = ends.indexOf(endAt)
  assert(place >= 0, `guard ${guard} does not know a hold that ends at ${endAt}`)
  counters.concurrency = withField(counters.concurrency, guard, ends.toSpliced(place, 1))
}

/** A window that had not ended when the plan dropped its name. */
export type DroppedWindow = readonly [key: string, state: WindowState]

/**
 * Drops windows that have ended, and state under names the plan no longer has once nothing is held there. Answers the
 * windows among the latter: what they had counted is lost, and an entry must say so.
 */
export function pruneCounters(
  counters: Counters,
  plan: Plan | undefined,
  nowAt: Millis,
): readonly DroppedWindow[] {
  const known = plan === undefined ? undefined : namesOf(plan)
  let dropped: DroppedWindow[] | undefined
  for (const key in counters.windows) {
    const window = counters.windows[key] as WindowState
    const ended = window.endAt <= nowAt
    const removed = !ended && known !== undefined && !known.rules.has(key) && window.held === 0
    if (removed) {
      dropped ??= []
      dropped.push([key, window])
    }
    if (ended || removed) counters.windows = withoutField(counters.windows, key)
  }
  for (const name in counters.concurrency)
    if (counters.concurrency[name]?.length === 0)
      counters.concurrency = withoutField(counters.concurrency, name)
  if (known !== undefined)
    for (const key in counters.rates)
      if (!known.rates.has(key)) counters.rates = withoutField(counters.rates, key)
  return dropped ?? NONE
}
const NONE: readonly DroppedWindow[] = []
