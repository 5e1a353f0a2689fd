/** What a replay is set up with: from options and policy, with every rule in words. */
import { basename } from 'node:path'
import type { Plan, Policy } from '../../kernel/plan.ts'
import type { Millis } from '../../units.ts'
import { usage } from '../failure.ts'
import type { AssignOptions } from './assign.ts'
import { mappingText, type Said } from './columns.ts'
import { createEstimator, type Estimator } from './estimate.ts'
import type { Setup } from './report.ts'
import type { Timeline } from './schedule.ts'
import type { Trace } from './trace.ts'

export interface Options extends Said {
  readonly policy: string
  readonly accounts?: number
  readonly users: number
  readonly plan?: readonly string[]
  readonly credits?: string
  readonly feature?: string
  readonly attribute?: Readonly<Record<string, string>>
  readonly speed: number
  readonly seed: number
  readonly store?: string
  readonly start: Millis
  readonly limit: number
  readonly estimated: readonly string[]
  readonly estimate: string
  readonly tokensPerSecond: number
  readonly baseDuration: Millis
  readonly patience: Millis
  readonly concurrency: number
  readonly step: Millis
  readonly audit?: true
  readonly report?: string
  readonly json?: true
}

export function plansOf(policy: Policy, said: readonly string[] | undefined): AssignOptions['plans'] {
  const [first = ''] = policy.plans.keys()
  return (said ?? [policy.defaultPlan ?? first]).map((text) => {
    const [, name = '', weight = '1'] = /^([^:]+)(?::(\d{1,6}))?$/.exec(text) ?? []
    const plan: Plan | undefined = policy.plans.get(name)
    if (plan !== undefined && Number(weight) > 0) return { plan, weight: Number(weight) }
    throw usage(
      `--plan ${text} names no plan of the policy`,
      `There are ${[...policy.plans.keys()].join(', ')}.`,
    )
  })
}

export function featureOf(policy: Policy, said: string | undefined, quantities: readonly string[]): string {
  if (said !== undefined && policy.features.has(said)) return said
  const names = [...policy.features.keys()].join(', ')
  if (said !== undefined) throw usage(`--feature ${said} is none of the policy`, `There are ${names}.`)
  for (const { name, card } of policy.features.values()) {
    const prices = card.lines.some(({ terms }) => terms.some(({ quantity }) => quantities.includes(quantity)))
    if (prices) return name
  }
  throw usage(
    `No feature of the policy prices ${quantities.join(' or ')}`,
    `Say --feature and --quantity; there are ${names}.`,
  )
}

export function estimatorsOf(
  { estimated, estimate }: Options,
  { mapping }: Trace,
): ReadonlyMap<string, Estimator> {
  const known = estimated.filter((quantity) => Object.hasOwn(mapping.quantities, quantity))
  return new Map(known.map((quantity) => [quantity, createEstimator(estimate)]))
}

export function setupOf(
  file: string,
  options: Options,
  trace: Trace,
  feature: string,
  { rule, plans }: { rule: string; plans: string },
  estimators: ReadonlyMap<string, Estimator>,
  timeline: Timeline,
  store: string,
): Setup {
  const attributes = Object.entries(options.attribute ?? {}).map(([name, value]) => ` ${name}=${value}`)
  const rules = [...estimators].map(([quantity, { rule }]) => `${quantity}: ${rule}`)
  return {
    trace: basename(file),
    columns: mappingText(trace.mapping),
    policy: `${options.policy}, ${feature}${attributes.join('')}`,
    accounts: options.credits === undefined ? rule : `${rule}; each has bought ${options.credits} CU`,
    plans,
    estimates: [...rules, 'all else as it was'].join('; '),
    durations: `${options.baseDuration} ms, and ${options.tokensPerSecond} output tokens a second`,
    waits: `waited for once, where at most ${options.patience / 1000} s`,
    time: timeline.rule,
    store,
  }
}
