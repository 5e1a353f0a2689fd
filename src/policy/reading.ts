/** What every part of a plan is read with. */
import type { Weekday, WindowRule } from '../kernel/plan.ts'
import { featureMatches } from '../ledger/grants.ts'
import { type Micros, parseMicros } from '../units.ts'
import { type Complain, pointer, quote } from './complaints.ts'
import { type WindowDefaults, windowRule } from './durations.ts'

export interface PlanContext {
  readonly complain: Complain
  /** Every feature that is written, also those with complaints of their own. */
  readonly features: readonly string[]
  readonly weekStart: Weekday
}

/** The items of a list with their pointers; those that were complained about already are `undefined` and left out. */
export function each<T>(list: readonly T[] | undefined, path: string): [item: T & {}, path: string][] {
  const items: [T & {}, string][] = []
  for (const [index, item] of (list ?? []).entries()) {
    if (item !== undefined && item !== null) items.push([item, pointer(path, index)])
  }
  return items
}

/** The features that patterns name; `undefined`, where nothing is written, is all of them. */
export function resolveFeatures(
  patterns: readonly string[] | undefined,
  path: string,
  { features, complain }: PlanContext,
): ReadonlySet<string> | undefined {
  if (patterns === undefined) return undefined
  const resolved = new Set<string>()
  for (const [pattern, at] of each(patterns, path)) {
    const matching = features.filter((feature) => featureMatches(pattern, feature))
    if (matching.length === 0)
      complain(at, `must match a feature of this policy: ${quote(pattern)} matches none of them`)
    for (const feature of matching) resolved.add(feature)
  }
  return resolved
}

/** `parseMicros` with a complaint; a substitute keeps the rest checkable. */
export function readAmount(value: string | number, path: string, complain: Complain): Micros {
  const micros = parseMicros(value)
  if (micros === undefined) {
    complain(
      path,
      `must be an amount such as "12.5" of at most six decimals and at most 9007199254.740991, not ${quote(value)}`,
    )
  }
  return micros ?? 0
}

interface WrittenWindow {
  readonly per: string
  readonly anchor?: string
  readonly week_start?: string
}
export function ruleOf(
  written: WrittenWindow,
  kind: WindowDefaults['kind'],
  path: string,
  context: PlanContext,
): WindowRule {
  const text = { per: written.per, anchor: written.anchor, weekStart: written.week_start }
  return windowRule(text, { kind, weekStart: context.weekStart }, path, context.complain)
}

/** Guards and allowances share one space of names, because their state does. */
export function claim(name: string, path: string, names: Map<string, string>, complain: Complain): void {
  const taken = names.get(name)
  if (taken !== undefined)
    complain(
      path,
      `must be unique in the plan: ${quote(name)} is the name of ${taken}, and live state is kept under it`,
    )
  else names.set(name, path)
}
