/** What is asked for, in µCU: by the feature's rate card, or as the caller states it. */
import { type Attributes, price, type Quantities, type RateLine } from '../ledger/price.ts'
import type { Micros } from '../units.ts'
import { fail } from './faults.ts'
import type { Feature, Plan, Policy } from './plan.ts'

export type Ask =
  | { readonly kind: 'estimate'; readonly quantities: Quantities }
  | { readonly kind: 'cost'; readonly costMicros: Micros }
  | { readonly kind: 'default' }

export interface Priced {
  readonly cost: Micros
  readonly quantities: Quantities | undefined
  readonly line: RateLine | undefined
}

export function featureOf(policy: Policy, name: string): Feature {
  const feature = policy.features.get(name)
  if (feature !== undefined) return feature
  if (policy.version === 0)
    fail('policy_missing', 'no policy has been published yet', {
      remedy: 'publish one: sluice policy publish FILE, serve --policy FILE, or PUT /v1/policy',
    })
  fail('feature_unknown', `the policy has no feature ${name}`, {
    path: '/feature',
    remedy: `one of: ${[...policy.features.keys()].slice(0, 20).join(', ')}`,
  })
}

/**
 * Prices what is about to be used. What no line prices, and no guard of the plan meters, is a mistake of the caller's, unless it is
 * said to be free.
 */
export function priceAsk(
  feature: Feature,
  attributes: Attributes,
  ask: Ask,
  plan: Plan,
  isUnpricedFree = false,
): Priced {
  if (ask.kind === 'cost') return { cost: ask.costMicros, quantities: undefined, line: undefined }
  const quantities = ask.kind === 'estimate' ? ask.quantities : feature.defaultEstimate
  if (quantities === undefined) {
    fail('estimate_missing', `feature ${feature.name} has no default estimate`, {
      path: '/estimate',
      remedy: 'send estimate or cost',
    })
  }
  const priced = price(feature.card, attributes, quantities)
  if (priced.line === undefined) {
    fail('price_missing', `no line of the rate card of ${feature.name} matches these attributes`, {
      path: '/attributes',
      remedy: 'send attributes that a line names, add a line without `when`, or send cost',
    })
  }
  for (const name of isUnpricedFree ? [] : priced.unpriced) {
    if (
      plan.guards.some(
        (guard) => guard.kind === 'rate' && guard.meter.kind === 'quantity' && guard.meter.quantity === name,
      )
    )
      continue
    fail(
      'price_missing',
      `line ${priced.line + 1} of the rate card of ${feature.name} has no price for ${name}`,
      {
        path: `/estimate/${name}`,
        remedy: 'leave it out, or give it a price',
      },
    )
  }
  return { cost: priced.costMicros, quantities, line: feature.card.lines[priced.line] }
}
