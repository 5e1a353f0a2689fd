/** Plans, from what is written to what the kernel reads. Everything here has the right form; its meaning is checked. */

import type {
  AllowanceSource,
  AllowanceWindow,
  Guard,
  Meter,
  Plan,
  RateGuard,
  RecurringGrant,
  Source,
  Weekday,
  WindowRule,
} from '../kernel/plan.ts'
import { DEFAULT_PRIORITY, featureMatches, GRANT_KINDS, type GrantKind } from '../ledger/grants.ts'
import { MICROS_PER_UNIT, type Micros, parseMicros } from '../units.ts'
import { type Complain, pointer, quote } from './complaints.ts'
import {
  boundedDuration,
  formatDuration,
  parseDuration,
  type WindowDefaults,
  windowRule,
} from './durations.ts'
import {
  BOUNDS,
  type GuardDocument,
  type PlanDocument,
  type RecurringGrantDocument,
  type SourceDocument,
} from './schema.ts'

export interface PlanContext {
  readonly complain: Complain
  /** Every feature that is written, also those with complaints of their own. */
  readonly features: readonly string[]
  readonly weekStart: Weekday
}

const HOLD_TTL_MS = 10 * 60_000
const HOLD_LIFETIME_MS = 24 * 3_600_000
const HOLD_LIFETIME_MOST_MS = 35 * 86_400_000
const PATIENCE_MS = 3_600_000

export function compilePlan(name: string, plan: PlanDocument, path: string, context: PlanContext): Plan {
  const { complain } = context
  const features = resolveFeatures(plan.features, `${path}/features`, context) ?? new Set(context.features)
  const names = new Map<string, string>()
  const guards = each(plan.guards, `${path}/guards`).map(([guard, at]) =>
    compileGuard(guard, at, names, context),
  )
  const waterfall = compileWaterfall(plan.waterfall, `${path}/waterfall`, names, context)
  const subjects = Object.entries(plan.subjects ?? {}).map(([dimension, bound]) => ({
    dimension,
    max: bound.max,
  }))
  const shortfall = plan.on_shortfall
  const compiled: Plan = {
    name,
    class: plan.class ?? 'standard',
    features,
    subjects,
    guards,
    waterfall,
    grants: compileGrants(plan.grants, `${path}/grants`, context),
    shortfall: shortfall && {
      absorbMicros: readAmount(shortfall.absorb, `${path}/on_shortfall/absorb`, complain),
      rule: ruleOf(shortfall, 'account', `${path}/on_shortfall`, context),
    },
    hold: compileHold(plan.hold, `${path}/hold`, complain),
    patienceMs:
      plan.patience === undefined
        ? PATIENCE_MS
        : boundedDuration(plan.patience, `${path}/patience`, complain),
    lowBalanceMicros: compileThresholds(plan.low_balance, `${path}/low_balance`, complain),
  }
  checkSize(compiled, path, complain)
  return compiled
}

/** The items of a list with their pointers; those that were complained about already are `undefined` and left out. */
function each<T>(list: readonly T[] | undefined, path: string): [item: T & {}, path: string][] {
  const items: [T & {}, string][] = []
  for (const [index, item] of (list ?? []).entries()) {
    if (item !== undefined && item !== null) items.push([item, pointer(path, index)])
  }
  return items
}

function resolveFeatures(
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
function readAmount(value: string | number, path: string, complain: Complain): Micros {
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
function ruleOf(
  written: WrittenWindow,
  kind: WindowDefaults['kind'],
  path: string,
  context: PlanContext,
): WindowRule {
  const text = { per: written.per, anchor: written.anchor, weekStart: written.week_start }
  return windowRule(text, { kind, weekStart: context.weekStart }, path, context.complain)
}

function claim(name: string, path: string, names: Map<string, string>, complain: Complain): void {
  const taken = names.get(name)
  if (taken !== undefined)
    complain(
      path,
      `must be unique in the plan: ${quote(name)} is the name of ${taken}, and live state is kept under it`,
    )
  else names.set(name, path)
}

function compileGuard(
  guard: GuardDocument,
  path: string,
  names: Map<string, string>,
  context: PlanContext,
): Guard {
  const { complain } = context
  claim(guard.name, `${path}/name`, names, complain)
  const base = {
    name: guard.name,
    by: guard.by,
    features: resolveFeatures(guard.features, `${path}/features`, context),
  }
  if ('concurrency' in guard) return { kind: 'concurrency', ...base, limit: guard.concurrency }
  if ('budget' in guard) {
    const limit = readAmount(guard.budget, `${path}/budget`, complain)
    return { kind: 'budget', ...base, limit, rule: ruleOf(guard, 'account', path, context) }
  }
  return { kind: 'rate', ...base, ...compileRate(guard.rate, `${path}/rate`, complain) }
}

type RateDocument = Extract<GuardDocument, { readonly rate: unknown }>['rate']

function compileRate(
  rate: RateDocument,
  path: string,
  complain: Complain,
): Pick<RateGuard, 'meter' | 'limit' | 'perMs' | 'algorithm' | 'capacity'> {
  const meter: Meter =
    rate.meter === 'requests' || rate.meter === 'cost'
      ? { kind: rate.meter }
      : { kind: 'quantity', quantity: rate.meter }
  const algorithm = rate.algorithm ?? 'gcra'
  const limit = readUnits(rate.limit, meter, `${path}/limit`, complain)
  if (rate.burst !== undefined && algorithm !== 'gcra') {
    complain(
      `${path}/burst`,
      `must be left out: only \`gcra\` has a burst, \`${algorithm}\` admits up to its limit at once`,
    )
  }
  const capacity = rate.burst === undefined ? limit : readUnits(rate.burst, meter, `${path}/burst`, complain)
  return { meter, limit, perMs: boundedDuration(rate.per, `${path}/per`, complain), algorithm, capacity }
}

/** Whole requests, µCU, or micro-units of a quantity; never zero, because a rate of nothing never admits and never refills. */
function readUnits(value: string | number, meter: Meter, path: string, complain: Complain): number {
  const micros = readAmount(value, path, complain)
  if (micros === 0 && parseMicros(value) === 0)
    complain(path, 'must be more than zero; to forbid a feature leave it out of `features`')
  if (meter.kind !== 'requests') return micros
  if (micros % MICROS_PER_UNIT !== 0)
    complain(path, `must be a whole number of requests, not ${quote(value)}`)
  return Math.floor(micros / MICROS_PER_UNIT)
}

function compileWaterfall(
  sources: readonly SourceDocument[],
  path: string,
  names: Map<string, string>,
  context: PlanContext,
): readonly Source[] {
  const compiled: Source[] = []
  const burnt = new Map<GrantKind, string>()
  let overageAt: string | undefined
  for (const [source, at] of each(sources, path)) {
    if ('allowance' in source) compiled.push(compileAllowance(source, at, names, context))
    else if ('credits' in source) {
      for (const [kind, kindAt] of each(source.credits, `${at}/credits`)) {
        const taken = burnt.get(kind)
        if (taken !== undefined)
          context.complain(
            kindAt,
            `must stand only once in the waterfall: \`${kind}\` is already at ${taken}`,
          )
        else burnt.set(kind, kindAt)
      }
      compiled.push({ kind: 'credits', kinds: each(source.credits, at).map(([kind]) => kind) })
    } else {
      if (overageAt !== undefined)
        context.complain(at, `must be the only overage: there is one at ${overageAt}`)
      overageAt = at
      const limit = readAmount(source.overage.limit, `${at}/overage/limit`, context.complain)
      compiled.push({
        kind: 'overage',
        limit,
        rule: ruleOf(source.overage, 'account', `${at}/overage`, context),
      })
    }
  }
  return compiled
}

type AllowanceDocument = Extract<SourceDocument, { readonly allowance: unknown }>

function compileAllowance(
  source: AllowanceDocument,
  path: string,
  names: Map<string, string>,
  context: PlanContext,
): AllowanceSource {
  const { complain } = context
  const name = source.allowance
  claim(name, `${path}/allowance`, names, complain)
  const seen = new Set<string>()
  const windows = each(source.windows, `${path}/windows`).map(([window, at]): AllowanceWindow => {
    if (seen.has(window.name))
      complain(`${at}/name`, `must be unique in the allowance: ${quote(window.name)} is taken`)
    seen.add(window.name)
    return {
      name: window.name,
      key: `${name}/${window.name}`,
      limit: readAmount(window.limit, `${at}/limit`, complain),
      rule: ruleOf(window, 'allowance', at, context),
    }
  })
  return {
    kind: 'allowance',
    name,
    by: source.by,
    features: resolveFeatures(source.features, `${path}/features`, context),
    windows,
  }
}

function compileGrants(
  grants: readonly RecurringGrantDocument[] | undefined,
  path: string,
  context: PlanContext,
): readonly RecurringGrant[] {
  const seen = new Set<string>()
  return each(grants, path).map(([grant, at]) => {
    const name = grant.name ?? grant.kind
    if (seen.has(name)) {
      const remedy = grant.name === undefined ? 'give it a `name` of its own' : 'choose another'
      context.complain(
        grant.name === undefined ? at : `${at}/name`,
        `must have a name that is unique in the plan: ${quote(name)} is taken; ${remedy}`,
      )
    }
    seen.add(name)
    return compileGrant(name, grant, at, context)
  })
}

function compileGrant(
  name: string,
  grant: RecurringGrantDocument,
  path: string,
  context: PlanContext,
): RecurringGrant {
  const { complain } = context
  const amount = readAmount(grant.amount, `${path}/amount`, complain)
  if (amount === 0 && parseMicros(grant.amount) === 0) complain(`${path}/amount`, 'must be more than zero')
  if (grant.every === undefined) {
    for (const key of ['rollover', 'anchor', 'week_start'] as const) {
      if (grant[key] !== undefined)
        complain(
          `${path}/${key}`,
          'must be left out, or `every` be given: a grant that comes once has no next period',
        )
    }
  }
  const text =
    grant.every === undefined
      ? undefined
      : { per: grant.every, anchor: grant.anchor, weekStart: grant.week_start }
  // Resolved for the sake of its complaints; a grant keeps the patterns, because it may outlive this policy.
  resolveFeatures(grant.features, `${path}/features`, context)
  return {
    name,
    kind: grant.kind,
    amount,
    every:
      text &&
      windowRule(text, { kind: 'recurrence', weekStart: context.weekStart, perKey: 'every' }, path, complain),
    rollover: grant.rollover === undefined ? 0 : readAmount(grant.rollover, `${path}/rollover`, complain),
    priority: grant.priority ?? DEFAULT_PRIORITY,
    features: grant.features && each(grant.features, path).map(([pattern]) => pattern),
  }
}

function compileHold(hold: PlanDocument['hold'], path: string, complain: Complain): Plan['hold'] {
  const lifetime = hold?.max_lifetime
  const given =
    hold?.ttl === undefined
      ? undefined
      : boundedDuration(hold.ttl, `${path}/ttl`, complain, HOLD_LIFETIME_MOST_MS)
  const most =
    lifetime === undefined
      ? Math.max(HOLD_LIFETIME_MS, given ?? 0)
      : boundedDuration(lifetime, `${path}/max_lifetime`, complain, HOLD_LIFETIME_MOST_MS)
  if (given !== undefined && given > most && parseDuration(hold?.ttl ?? '') === given) {
    complain(`${path}/ttl`, `must be at most \`max_lifetime\`, ${formatDuration(most)}`)
  }
  return {
    ttlMs: given ?? Math.min(HOLD_TTL_MS, most),
    maxLifetimeMs: most,
    onExpiry: hold?.on_expiry ?? 'release',
  }
}

function compileThresholds(
  thresholds: readonly (string | number)[] | undefined,
  path: string,
  complain: Complain,
): readonly Micros[] {
  let above = Infinity
  return each(thresholds, path).map(([threshold, at]) => {
    const micros = readAmount(threshold, at, complain)
    if (micros >= above) complain(at, 'must be less than the one before it: thresholds descend')
    above = micros
    return micros
  })
}

/** State of one cell's guards and windows may not grow past this, so that with 256 grants it stays within 64 KB. */
const MAX_STATE_BYTES = 40 * 1024

/** At most 8 dimensions, and no cell that can outgrow its bound. Sizes are of the JSON that the kernel keeps. */
function checkSize(plan: Plan, path: string, complain: Complain): void {
  const bytes = new Map<string, number>()
  const grow = (by: string | undefined, size: number): void =>
    void bytes.set(by ?? '', (bytes.get(by ?? '') ?? 0) + size)
  for (const guard of plan.guards) grow(guard.by, guard.name.length + 8 + stateBytes(guard))
  for (const source of plan.waterfall) {
    if (source.kind !== 'allowance') continue
    for (const window of source.windows) grow(source.by, window.key.length + 8 + WINDOW_BYTES)
  }
  const dimensions = new Set([...bytes.keys(), ...plan.subjects.map((subject) => subject.dimension)])
  dimensions.delete('')
  if (dimensions.size > BOUNDS.dimensions) {
    complain(
      path,
      `must use at most ${BOUNDS.dimensions} dimensions in \`by\` and \`subjects\`, not ${dimensions.size}`,
    )
  }
  for (const [by, size] of bytes) {
    if (size <= MAX_STATE_BYTES) continue
    const whose = by === '' ? 'the account' : `one ${by}`
    complain(
      path,
      `must keep less state: guards and windows counted for ${whose} may grow to ${Math.ceil(size / 1024)} KB, at most 40; lower \`concurrency\` or use fewer`,
    )
  }
}

const WINDOW_BYTES = 120
function stateBytes(guard: Guard): number {
  if (guard.kind === 'concurrency') return guard.limit * 14
  if (guard.kind === 'budget') return WINDOW_BYTES
  return guard.algorithm === 'sliding' ? 33 * 32 : 90
}

export const ALL_KINDS: readonly GrantKind[] = GRANT_KINDS
