/** Plans, from what is written to what the kernel reads. Everything here has the right form; its meaning is checked. */
import type { Guard, Plan } from '../kernel/plan.ts'
import type { Micros } from '../units.ts'
import type { Complain } from './complaints.ts'
import { boundedDuration, formatDuration, parseDuration } from './durations.ts'
import { BOUNDS } from './fields.ts'
import { compileGuard } from './guards.ts'
import { each, type PlanContext, readAmount, resolveFeatures, ruleOf } from './reading.ts'
import type { PlanDocument } from './schema.ts'
import { compileGrants, compileWaterfall } from './sources.ts'

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
    const most = BOUNDS.dimensions
    complain(path, `must use at most ${most} dimensions in \`by\` and \`subjects\`, not ${dimensions.size}`)
  }
  for (const [by, size] of bytes) {
    if (size <= MAX_STATE_BYTES) continue
    const grows = `what is counted for ${by === '' ? 'the account' : `one ${by}`} may grow to ${Math.ceil(size / 1024)} KB`
    complain(
      path,
      `must keep at most 40 KB of state, and ${grows}: lower \`concurrency\`, or use fewer guards`,
      [path],
    )
  }
}

const WINDOW_BYTES = 120
function stateBytes(guard: Guard): number {
  if (guard.kind === 'concurrency') return guard.limit * 14
  if (guard.kind === 'budget') return WINDOW_BYTES
  return guard.algorithm === 'sliding' ? 33 * 32 : 90
}
