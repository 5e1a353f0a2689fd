/** From what the owner wrote to what the kernel reads, with every complaint at once. */
import type { Feature, Plan, Policy } from '../kernel/plan.ts'
import type { Quantities } from '../ledger/price.ts'
import { parseMicros } from '../units.ts'
import { type Complain, type Complaint, complaintList, type Locate, pointer, quote } from './complaints.ts'
import { weekday } from './durations.ts'
import { BOUNDS } from './fields.ts'
import { invalid, tryParse } from './parse.ts'
import { plainCopy } from './plain.ts'
import { compilePlan } from './plans.ts'
import { compileRateCard, type Written } from './rates.ts'
import { type FeatureDocument, type PolicyDocument, PolicySchema } from './schema.ts'
import { checkShape, isPlain, type Shape } from './shape.ts'
import { policyWarnings } from './warnings.ts'

export interface Checked {
  /** What makes the policy invalid; empty where it can be published. */
  readonly complaints: readonly Complaint[]
  /** What is allowed and most likely not meant. Looked for only where there are no complaints. */
  readonly warnings: readonly Complaint[]
  /** The compiled policy, as version 0, where there are no complaints. */
  readonly policy?: Policy
}

/**
 * Compiles a policy from its text (YAML or JSON) or from plain data. `version` is the number it is published under. The
 * answer is frozen. Throws `policy_invalid` with all complaints: path, what would be right, line and column in a text.
 */
export function compilePolicy(version: number, source: string | PolicyDocument): Policy {
  const { complaints, policy } = compile(version, source)
  if (policy === undefined) throw invalid(complaints)
  return policy
}

/** Checks a policy without publishing it. Never throws because of what is written. */
export function checkPolicy(source: unknown): Checked {
  const { complaints, policy, locate } = compile(0, source)
  if (policy === undefined) return { complaints, warnings: [] }
  const found = complaintList(locate)
  policyWarnings(policy, found.complain)
  return { complaints, warnings: found.all(), policy }
}

interface Compiled {
  readonly complaints: readonly Complaint[]
  readonly policy?: Policy
  readonly locate: Locate
}
const nowhere = () => undefined

function compile(version: number, source: unknown): Compiled {
  const read = typeof source === 'string' ? tryParse(source) : copied(source)
  if (read.parsed === undefined) return { complaints: read.complaints, locate: nowhere }
  const { document, locate, written } = read.parsed
  const found = complaintList(locate)
  const shaped = checkShape(PolicySchema as unknown as Shape, document, '', found.complain)
  const policy =
    shaped === undefined
      ? undefined
      : build(version, shaped as PolicyDocument, document, found.complain, written)
  const complaints = found.all()
  return policy === undefined || complaints.length > 0
    ? { complaints, locate }
    : { complaints, policy: deepFreeze(policy), locate }
}

function copied(source: unknown): ReturnType<typeof tryParse> {
  const found = complaintList()
  const document = plainCopy(source, found.complain)
  const complaints = found.all()
  return complaints.length > 0
    ? { complaints }
    : { parsed: { document, locate: nowhere, written: nowhere }, complaints }
}

/** `shaped` lacks what was complained about; names are taken from `written`, so that one mistake does not make a second. */
function build(
  version: number,
  shaped: PolicyDocument,
  whole: unknown,
  complain: Complain,
  written: Written,
): Policy {
  const features = new Map<string, Feature>()
  for (const [name, feature] of Object.entries(shaped.features)) {
    features.set(name, compileFeature(name, feature, pointer('/features', name), complain, written))
  }
  const context = { complain, features: namesIn(whole, 'features'), weekStart: weekday(shaped.week_start) }
  const plans = new Map<string, Plan>()
  for (const [name, plan] of Object.entries(shaped.plans)) {
    plans.set(name, compilePlan(name, plan, pointer('/plans', name), context))
  }
  const chosen = shaped.default_plan
  if (chosen !== undefined && !namesIn(whole, 'plans').includes(chosen)) {
    complain(
      '/default_plan',
      `must name a plan of this policy: ${quote(chosen)} is none of ${namesIn(whole, 'plans').slice(0, 10).join(', ')}`,
    )
  }
  const usageDimensions = dimensionsOf(shaped.usage?.dimensions, features)
  return { version, features, plans, defaultPlan: chosen, usageDimensions }
}

/** Each once, in order of name, so that two policies that mean the same make the same totals. */
function dimensionsOf(
  written: readonly (string | undefined)[] | undefined,
  features: ReadonlyMap<string, Feature>,
): readonly string[] {
  const named = written?.filter((name) => name !== undefined) ?? ['endpoint', ...pricedAttributes(features)]
  return [...new Set(['feature', ...named])].sort()
}

/** The attributes that prices depend on; of very many the first. */
function pricedAttributes(features: ReadonlyMap<string, Feature>): readonly string[] {
  const lines = [...features.values()].flatMap(({ card }) => card.lines)
  const names = new Set(lines.flatMap(({ when }) => when.map(([attribute]) => `attributes.${attribute}`)))
  return [...names].slice(0, BOUNDS.usageDimensions - 1)
}

function namesIn(document: unknown, key: string): readonly string[] {
  const named = isPlain(document) ? document[key] : undefined
  return isPlain(named) ? Object.keys(named) : []
}

function compileFeature(
  name: string,
  feature: FeatureDocument,
  path: string,
  complain: Complain,
  written: Written,
): Feature {
  const card = compileRateCard(feature.rate_card ?? [], `${path}/rate_card`, complain, written)
  const estimate = feature.default_estimate
  if (estimate !== undefined && feature.rate_card === undefined) {
    const unless = [`${path}/rate_card`]
    complain(
      `${path}/default_estimate`,
      'must be left out, or `rate_card` be given: nothing prices it',
      unless,
    )
  }
  return {
    name,
    card,
    defaultEstimate: estimate && readEstimate(estimate, `${path}/default_estimate`, complain),
  }
}

function readEstimate(
  estimate: Readonly<Record<string, string | number>>,
  path: string,
  complain: Complain,
): Quantities {
  const quantities: Record<string, number> = {}
  for (const [quantity, value] of Object.entries(estimate)) {
    const micros = parseMicros(value)
    if (micros === undefined)
      complain(
        pointer(path, quantity),
        `must be a quantity of at most six decimals and at most 9007199254.740991, not ${quote(value)}`,
      )
    quantities[quantity] = micros ?? 0
  }
  return quantities
}

/**
 * Maps and sets have no frozen form; their types are read-only. Lists are left as they are: V8 makes an object for each
 * step through a frozen one, and a decision goes through a dozen lists of its plan.
 */
function deepFreeze<T>(value: T): T {
  if (typeof value !== 'object' || value === null || Object.isFrozen(value)) return value
  if (!Array.isArray(value)) Object.freeze(value)
  if (value instanceof Map) for (const entry of value.values()) deepFreeze(entry)
  else for (const entry of Object.values(value)) deepFreeze(entry)
  return value
}
