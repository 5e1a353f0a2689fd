/**
 * The compiled policy, as the kernel reads it. `policy/` makes it from what the owner wrote; nothing here parses.
 * Everything is frozen data, so that one compiled policy serves all decisions at once.
 */

import type { GrantKind } from '../ledger/grants.ts'
import type { Quantities, RateCard } from '../ledger/price.ts'
import { wholeText } from '../texts.ts'
import type { Micros, Millis } from '../units.ts'

export interface Policy {
  readonly version: number
  readonly features: ReadonlyMap<string, Feature>
  readonly plans: ReadonlyMap<string, Plan>
  /** The plan that an unknown account's first request makes it on. */
  readonly defaultPlan: string | undefined
  /** What totals of usage are kept apart by, as reports call it; in order of name, `feature` always among them. */
  readonly usageDimensions: readonly string[]
}

/** The policy in force and, by version, those that open requests were priced under. */
export interface PolicySet {
  readonly active: Policy
  readonly at: (version: number) => Policy | undefined
}

export interface Feature {
  readonly name: string
  readonly card: RateCard
  readonly defaultEstimate: Quantities | undefined
}

/** Under load the queue refuses `sheddable` first and `critical` last. */
export type PriorityClass = 'critical' | 'standard' | 'sheddable'

export interface Plan {
  readonly name: string
  readonly class: PriorityClass
  /** Every feature the plan allows; patterns such as `codex.*` are resolved when the policy is compiled. */
  readonly features: ReadonlySet<string>
  readonly subjects: readonly { readonly dimension: string; readonly max: number }[]
  readonly guards: readonly Guard[]
  readonly waterfall: readonly Source[]
  readonly grants: readonly RecurringGrant[]
  readonly shortfall: { readonly absorbMicros: Micros; readonly rule: WindowRule } | undefined
  readonly hold: {
    readonly ttlMs: Millis
    readonly maxLifetimeMs: Millis
    readonly onExpiry: 'release' | 'charge'
  }
  readonly patienceMs: Millis
  /** Descending thresholds in µCU of credits left. */
  readonly lowBalanceMicros: readonly Micros[]
}

/**
 * How windows follow each other. `calendar` follows the account's zone, `account` counts periods from its anchor
 * instant, `first_use` opens at the first hold or charge and runs its length. `calendar_or_account` is what budgets,
 * overage and recurrence default to: `account` where the account was created with an anchor, else `calendar`.
 */
export type WindowRule =
  | { readonly anchor: 'first_use'; readonly lengthMs: Millis }
  | { readonly anchor: 'calendar'; readonly unit: CalendarUnit; readonly weekStart: Weekday }
  | { readonly anchor: 'calendar_or_account'; readonly unit: CalendarUnit; readonly weekStart: Weekday }
  | {
      readonly anchor: 'account'
      readonly period: { readonly unit: CalendarUnit } | { readonly lengthMs: Millis }
    }

export type CalendarUnit = 'hour' | 'day' | 'week' | 'month'
/** ISO 8601: Monday is 1, Sunday 7. */
export type Weekday = 1 | 2 | 3 | 4 | 5 | 6 | 7

export type Guard = RateGuard | ConcurrencyGuard | BudgetGuard

interface GuardBase {
  /** Unique among the plan's guards and allowances: live state is kept under it. */
  readonly name: string
  /** The dimension whose value has the state; undefined counts for the whole account. */
  readonly by: string | undefined
  /** Features it applies to; undefined is all. */
  readonly features: ReadonlySet<string> | undefined
}

export interface RateGuard extends GuardBase {
  readonly kind: 'rate'
  readonly meter: Meter
  /** Units admitted in `perMs`: requests, µCU, or micro-units of the quantity. */
  readonly limit: number
  readonly perMs: Millis
  readonly algorithm: 'gcra' | 'sliding' | 'fixed'
  /** The most that can be admitted at once: `burst` for gcra, else the limit. */
  readonly capacity: number
}
export type Meter =
  | { readonly kind: 'requests' }
  | { readonly kind: 'cost' }
  | { readonly kind: 'quantity'; readonly quantity: string }

/**
 * What a rate's state is kept under: its name, and its meter where that is not requests. A rate that comes to meter
 * something else begins anew, since µCU counted as requests would refuse for years.
 */
export function rateKey({ name, meter }: RateGuard): string {
  if (meter.kind === 'requests') return name
  return wholeText(meter.kind === 'cost' ? `${name}:cost` : `${name}:quantity:${meter.quantity}`)
}

/** The most holds that one guard counts: it lists their ends in its cell, so that its advice is true. */
export const MAX_CONCURRENCY = 2_000

export interface ConcurrencyGuard extends GuardBase {
  readonly kind: 'concurrency'
  readonly limit: number
}

export interface BudgetGuard extends GuardBase {
  readonly kind: 'budget'
  readonly limit: Micros
  readonly rule: WindowRule
}

export type Source = AllowanceSource | CreditsSource | OverageSource

export interface AllowanceSource {
  readonly kind: 'allowance'
  readonly name: string
  /** `allowance:<name>`, as parts and explanations call it. */
  readonly source: string
  readonly by: string | undefined
  readonly features: ReadonlySet<string> | undefined
  readonly windows: readonly AllowanceWindow[]
}
export interface AllowanceWindow {
  readonly name: string
  /** `<allowance>/<window>`: the key of its state, of overrides and of reports. */
  readonly key: string
  readonly limit: Micros
  readonly rule: WindowRule
}

export interface CreditsSource {
  readonly kind: 'credits'
  readonly kinds: readonly GrantKind[]
}

export interface OverageSource {
  readonly kind: 'overage'
  readonly limit: Micros
  readonly rule: WindowRule
}

export interface RecurringGrant {
  /** Unique in the plan; defaults to the kind. */
  readonly name: string
  readonly kind: GrantKind
  readonly amount: Micros
  /** Absent: issued once, when the account gets the plan, and never expiring. */
  readonly every: WindowRule | undefined
  readonly rollover: Micros
  readonly priority: number
  readonly features: readonly string[] | undefined
}

/** State keys that are not a guard's or allowance's name; the policy refuses these two as names. */
export const OVERAGE = 'overage'
export const ABSORB = 'absorb'
