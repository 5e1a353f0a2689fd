/** Histories a little smaller than one that fails: fewer steps first, then less policy, then less said in each step. */
import type { PlanDocument, PolicyDocument } from '../policy/schema.ts'
import type { History, Step } from './workload.ts'

/** The largest cuts first; each is tried, and the first that still fails is cut further. */
export function* smallerHistories(history: History): IterableIterator<History> {
  for (const steps of shorterLists(history.steps)) yield { ...history, steps }
  for (const policy of smallerPolicies(history.policy, history.account.plan)) yield { ...history, policy }
  for (const [place, step] of history.steps.entries()) {
    for (const smaller of smallerSteps(step, history.account.plan))
      yield { ...history, steps: history.steps.with(place, smaller) }
  }
  if (history.account.time_zone !== 'UTC')
    yield { ...history, account: { ...history.account, time_zone: 'UTC' } }
  if (history.account.anchor_at !== undefined) {
    const { anchor_at: _, ...account } = history.account
    yield { ...history, account }
  }
}

/** Without a half, then without a quarter, down to without one. */
function* shorterLists<T>(list: readonly T[]): IterableIterator<readonly T[]> {
  for (let size = Math.ceil(list.length / 2); size >= 1; size = size === 1 ? 0 : Math.ceil(size / 2))
    for (let from = list.length - size; from > -size; from -= size)
      yield list.toSpliced(Math.max(0, from), Math.min(size, size + from))
}

function* smallerPolicies(policy: PolicyDocument, used: string): IterableIterator<PolicyDocument> {
  for (const [name, plan] of Object.entries(policy.plans))
    for (const smaller of smallerPlans(plan)) yield { ...policy, plans: { ...policy.plans, [name]: smaller } }
  for (const name of Object.keys(policy.plans)) {
    const bare: PlanDocument = { waterfall: [{ credits: ['purchased'] }] }
    if (name !== used && JSON.stringify(policy.plans[name]) !== JSON.stringify(bare))
      yield { ...policy, plans: { ...policy.plans, [name]: bare } }
  }
}

function* smallerPlans(plan: PlanDocument): IterableIterator<PlanDocument> {
  for (const guards of shorterLists(plan.guards ?? [])) yield { ...plan, guards }
  for (const grants of shorterLists(plan.grants ?? [])) yield { ...plan, grants }
  for (const waterfall of shorterLists(plan.waterfall)) if (waterfall.length > 0) yield { ...plan, waterfall }
  for (const key of ['features', 'subjects', 'on_shortfall', 'hold', 'patience', 'low_balance'] as const) {
    const { [key]: gone, ...rest } = plan
    if (gone !== undefined) yield rest
  }
  for (const [place, source] of plan.waterfall.entries()) {
    if (!('allowance' in source)) continue
    for (const windows of shorterLists(source.windows))
      if (windows.length > 0) yield { ...plan, waterfall: plan.waterfall.with(place, { ...source, windows }) }
  }
}

const OPTIONAL = [
  'attributes',
  'min_cost',
  'ttl_ms',
  'dry_run',
  'endpoint',
  'duration_ms',
  'used',
  'priority',
]
const AMOUNTS = ['cost', 'amount', 'min_cost']

function* smallerSteps(step: Step, plan: string): IterableIterator<Step> {
  if (step.op === 'publish') {
    for (const policy of smallerPolicies(step.policy, plan)) yield { ...step, policy }
    return
  }
  for (const key of OPTIONAL) {
    const { [key]: gone, ...rest } = step as unknown as Record<string, unknown>
    if (gone !== undefined) yield rest as unknown as Step
  }
  for (const key of AMOUNTS) {
    const value = (step as unknown as Record<string, unknown>)[key]
    if (typeof value === 'string' && value.includes('.'))
      yield { ...step, [key]: value.split('.')[0] } as unknown as Step
  }
}
