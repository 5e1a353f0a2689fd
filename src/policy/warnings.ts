/** What a policy may say, and most likely does not mean. */
import type { AllowanceSource, Guard, Plan, Policy, Source } from '../kernel/plan.ts'
import { GRANT_KINDS, type GrantKind } from '../ledger/grants.ts'
import { type Complain, pointer } from './complaints.ts'

/** Looks through a valid policy; the paths are those of the document it was compiled from. */
export function policyWarnings(policy: Policy, warn: Complain): void {
  const allowed = new Set([...policy.plans.values()].flatMap((plan) => [...plan.features]))
  for (const feature of policy.features.values()) {
    const path = pointer('/features', feature.name)
    if (!allowed.has(feature.name)) warn(path, 'is allowed by no plan: nobody can use it')
    const last = feature.card.lines.at(-1)
    if (last !== undefined && last.when.length > 0) {
      warn(
        `${path}/rate_card`,
        'has no last line without `when`: a use that no line matches is refused, or recorded unpriced',
      )
    }
    for (const word of ['requests', 'cost']) {
      if (!priced(policy, [feature.name]).has(word)) continue
      warn(
        path,
        `prices a quantity \`${word}\`: no rate can count it, because \`meter: ${word}\` means something else`,
      )
    }
    for (const quantity of Object.keys(feature.defaultEstimate ?? {})) {
      if (!priced(policy, [feature.name]).has(quantity)) {
        warn(
          pointer(`${path}/default_estimate`, quantity),
          'is priced by no line of the rate card, so it holds nothing',
        )
      }
    }
  }
  for (const plan of policy.plans.values()) warnOfPlan(policy, plan, pointer('/plans', plan.name), warn)
}

function warnOfPlan(policy: Policy, plan: Plan, path: string, warn: Complain): void {
  warnOfWaterfall(plan, path, warn)
  for (const [index, guard] of plan.guards.entries()) {
    const at = `${path}/guards/${index}`
    if (unused(guard, plan)) warn(at, 'never applies: the plan allows none of its features')
    if (guard.kind !== 'rate' || guard.meter.kind !== 'quantity') continue
    if (!priced(policy, guard.features ?? plan.features).has(guard.meter.quantity)) {
      warn(`${at}/rate/meter`, `counts \`${guard.meter.quantity}\`, which no price of its features mentions`)
    }
  }
  const burnt = new Set(plan.waterfall.flatMap((source) => (source.kind === 'credits' ? source.kinds : [])))
  for (const [index, grant] of plan.grants.entries()) {
    const at = `${path}/grants/${index}`
    if (!burnt.has(grant.kind))
      warn(`${at}/kind`, `is burnt by no step of the waterfall: these credits cannot be spent`)
    if (
      grant.every?.anchor === 'account' &&
      'lengthMs' in grant.every.period &&
      grant.every.period.lengthMs < 3_600_000
    ) {
      warn(
        `${at}/every`,
        'is less than an hour: each recurrence writes entries for every account, used or not',
      )
    }
  }
  const granted = new Set<GrantKind>(plan.grants.map((grant) => grant.kind))
  const idle = GRANT_KINDS.filter((kind) => !burnt.has(kind) && !granted.has(kind))
  if (idle.length > 0)
    warn(
      `${path}/waterfall`,
      `burns no credits of kind ${idle.join(', ')}: such grants could not be spent on this plan`,
    )
}

function warnOfWaterfall(plan: Plan, path: string, warn: Complain): void {
  const overage = plan.waterfall.findIndex((source) => source.kind === 'overage')
  for (const [index, source] of plan.waterfall.entries()) {
    const at = `${path}/waterfall/${index}`
    if (overage >= 0 && index > overage)
      warn(at, 'comes after overage: it is drawn only once overage is spent; put it before')
    if (source.kind === 'allowance' && unused(source, plan))
      warn(at, 'never pays: the plan allows none of its features')
  }
  if (plan.grants.length === 0 && !plan.waterfall.some(paysAlone)) {
    warn(
      path,
      'has neither an allowance nor grants nor overage: its accounts are refused until somebody grants them credits',
    )
  }
}

const paysAlone = (source: Source): boolean => source.kind !== 'credits'

function unused(limited: Guard | AllowanceSource, plan: Plan): boolean {
  return limited.features?.isDisjointFrom(plan.features) === true
}

/** Every quantity that some line of these features' cards has a price for. */
function priced(policy: Policy, features: Iterable<string>): ReadonlySet<string> {
  const quantities = new Set<string>()
  for (const name of features) {
    for (const line of policy.features.get(name)?.card.lines ?? []) {
      for (const term of line.terms) quantities.add(term.quantity)
    }
  }
  return quantities
}
