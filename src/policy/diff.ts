/** What a new policy changes, for whom, and what becomes of state that is alive when it is published. */
import type { AllowanceSource, Feature, Guard, Plan, Policy, RecurringGrant, Source } from '../kernel/plan.ts'
import type { RateCard, RateLine } from '../ledger/price.ts'
import { formatMicros } from '../units.ts'
import { pointer } from './complaints.ts'
import { formatDuration } from './durations.ts'
import {
  conditionWords,
  cuWords,
  grantWords,
  guardWords,
  meterName,
  meterWords,
  namesWords,
  priceWords,
  ruleWords,
  sourceWords,
} from './words.ts'

export interface PolicyChange {
  readonly kind: 'added' | 'removed' | 'changed'
  /** By name, not by place: `/plans/plus/guards/requests/limit`. */
  readonly path: string
  /** Whom it concerns: `plan plus`, `feature codex.task`, `everyone`. */
  readonly whom: string
  readonly before?: string
  readonly after?: string
  /** What becomes of live state. */
  readonly effect: string
  /** All of it in one line. */
  readonly text: string
}

export interface PolicyDiff {
  readonly changes: readonly PolicyChange[]
  /** The texts in order; one line that says so where nothing changes. */
  readonly lines: readonly string[]
}

const EFFECT = {
  limit: 'holds at once: what is used stays, and what is left is never below zero',
  rule: 'begins when the present window ends',
  rate: 'holds at once: what has been counted stays',
  by: 'counts anew under the new dimension; the old state goes when its last hold has',
  removed: 'its state goes when its last hold has',
  added: 'counts from the first decision under this version',
  price: 'requests that are open keep the price they were reserved under',
  next: 'from the next decision',
  credits: 'from the next decision; credits that no step burns wait',
  grant: 'from the next period',
  grantAdded: 'issued when an account is next brought to now',
  grantRemoved: 'stops recurring; what was issued runs to its period’s end',
  planAdded: 'for accounts that are put on it',
  planRemoved: 'accounts that are still on it get the error plan_unknown: move them first',
  featureAdded: 'from the next decision, where a plan allows it',
  featureRemoved:
    'refused from the next decision; open requests settle at the price they were reserved under',
  hold: 'for holds that begin or are extended from now on',
  balance: 'at the next change of a balance',
  usage: 'for usage summed from now on: a report by what older totals do not know reads entries',
} as const

type Row = readonly [field: string, before: string | undefined, after: string | undefined, effect: string]
interface Place {
  readonly path: string
  readonly whom: string
}

/** Compares two compiled policies. The order of what is written counts only where it matters to a decision. */
export function diffPolicies(before: Policy, after: Policy): PolicyDiff {
  const changes: PolicyChange[] = []
  const tell = (change: PolicyChange): void => void changes.push(change)
  const everyone = { path: '', whom: 'everyone' }
  const dimensions = (policy: Policy): string => policy.usageDimensions.join(', ')
  rows(
    everyone,
    [
      ['default_plan', before.defaultPlan, after.defaultPlan, EFFECT.next],
      ['usage/dimensions', dimensions(before), dimensions(after), EFFECT.usage],
    ],
    tell,
  )
  pairs(before.features, after.features, (name, a, b) => {
    const place = { path: pointer('/features', name), whom: `feature ${name}` }
    if (a !== undefined && b !== undefined) diffFeature(place, a, b, tell)
    else tell(presence(place, a && place.whom, b && place.whom, [EFFECT.featureAdded, EFFECT.featureRemoved]))
  })
  pairs(before.plans, after.plans, (name, a, b) => {
    const place = { path: pointer('/plans', name), whom: `plan ${name}` }
    if (a !== undefined && b !== undefined) diffPlan(place, a, b, tell)
    else tell(presence(place, a && place.whom, b && place.whom, [EFFECT.planAdded, EFFECT.planRemoved]))
  })
  const lines = changes.length === 0 ? ['Nothing changes.'] : changes.map((change) => change.text)
  return { changes, lines }
}

type Tell = (change: PolicyChange) => void

/** Each name of either map: first those of the old, in their order, then those that are new. */
function pairs<T>(
  before: ReadonlyMap<string, T>,
  after: ReadonlyMap<string, T>,
  visit: (name: string, before: T | undefined, after: T | undefined) => void,
): void {
  for (const name of new Set([...before.keys(), ...after.keys()]))
    visit(name, before.get(name), after.get(name))
}

/** One change for each row whose two sides differ. */
function rows(place: Place, compared: readonly Row[], tell: Tell): void {
  for (const [field, before, after, effect] of compared) {
    if (before === after) continue
    tell(presence({ path: `${place.path}/${field}`, whom: place.whom }, before, after, [effect, effect]))
  }
}

/** Added, removed or changed, by which side there is. */
function presence(
  { path, whom }: Place,
  before: string | undefined,
  after: string | undefined,
  [added, removed]: readonly [added: string, removed: string],
): PolicyChange {
  const kind = before === undefined ? 'added' : after === undefined ? 'removed' : 'changed'
  const effect = kind === 'removed' ? removed : added
  const what = kind === 'changed' ? `${before} → ${after}` : `${kind}: ${after ?? before}`
  const sides = { ...(before !== undefined && { before }), ...(after !== undefined && { after }) }
  return { kind, path, whom, ...sides, effect, text: `${path.slice(1)}: ${what} (${effect})` }
}

function diffFeature(place: Place, before: Feature, after: Feature, tell: Tell): void {
  diffCard({ ...place, path: `${place.path}/rate_card` }, before.card, after.card, tell)
  rows(place, [['default_estimate', estimate(before), estimate(after), EFFECT.next]], tell)
}

function estimate({ defaultEstimate }: Feature): string | undefined {
  if (defaultEstimate === undefined) return undefined
  return Object.entries(defaultEstimate)
    .map(([quantity, amount]) => `${formatMicros(amount)} ${quantity}`)
    .join(', ')
}

/** Lines are known by their conditions; their order counts where a use can match two of them. */
function diffCard(place: Place, before: RateCard, after: RateCard, tell: Tell): void {
  const old = byConditions(before)
  const fresh = byConditions(after)
  pairs(old, fresh, (conditions, a, b) => {
    const at = { ...place, path: pointer(place.path, conditions) }
    const quantities = new Set([...(a?.terms ?? []), ...(b?.terms ?? [])].map((term) => term.quantity))
    const compared = [...quantities, undefined].map((quantity): Row => {
      const side = (line: RateLine | undefined) => line && priceWords(line, quantity)
      return [quantity ?? 'per_request', side(a), side(b), EFFECT.price]
    })
    if (a !== undefined && b !== undefined) return rows(at, compared, tell)
    const prices = compared.map(([name, was, is]) => (was ?? is) && `${name} ${was ?? is}`).filter(Boolean)
    const line = prices.join(', ') || 'free'
    tell(presence(at, a && line, b && line, [EFFECT.price, EFFECT.price]))
  })
  const common = (lines: ReadonlyMap<string, RateLine>, other: ReadonlyMap<string, RateLine>): string =>
    [...lines.keys()].filter((conditions) => other.has(conditions)).join(' | ')
  rows(place, [['order', common(old, fresh), common(fresh, old), EFFECT.price]], tell)
}

const byConditions = (card: RateCard) => new Map(card.lines.map((line) => [conditionWords(line), line]))

function diffPlan(place: Place, before: Plan, after: Plan, tell: Tell): void {
  const subjects = (plan: Plan) => plan.subjects.map((subject) => `${subject.max} ${subject.dimension}`)
  rows(
    place,
    [
      ['class', before.class, after.class, EFFECT.next],
      ['features', namesWords(before.features), namesWords(after.features), EFFECT.next],
      ['subjects', namesWords(subjects(before)), namesWords(subjects(after)), EFFECT.limit],
      ['guards/order', order(before, after), order(after, before), EFFECT.next],
      ['waterfall', waterfall(before), waterfall(after), EFFECT.credits],
    ],
    tell,
  )
  pairs(named(before.guards), named(after.guards), (name, a, b) => {
    const at = { ...place, path: `${place.path}/guards/${name}` }
    if (a !== undefined && b !== undefined && a.kind === b.kind) rows(at, guardRows(a, b), tell)
    else tell(presence(at, a && guardWords(a), b && guardWords(b), [EFFECT.added, EFFECT.removed]))
  })
  diffSources(place, before, after, tell)
  pairs(named(before.grants), named(after.grants), (name, a, b) => {
    const at = { ...place, path: `${place.path}/grants/${name}` }
    if (a !== undefined && b !== undefined) rows(at, grantRows(a, b), tell)
    else tell(presence(at, a && grantWords(a), b && grantWords(b), [EFFECT.grantAdded, EFFECT.grantRemoved]))
  })
  rows(place, conductRows(before, after), tell)
}

const named = <T extends { readonly name: string }>(list: readonly T[]) =>
  new Map(list.map((one) => [one.name, one]))
const waterfall = (plan: Plan): string => plan.waterfall.map(sourceWords).join(' → ')
const order = (plan: Plan, other: Plan): string => {
  const known = named(other.guards)
  return plan.guards
    .map((guard) => guard.name)
    .filter((name) => known.has(name))
    .join(', ')
}

function guardRows(a: Guard, b: Guard): readonly Row[] {
  const scope: readonly Row[] = [
    ['by', a.by ?? 'the account', b.by ?? 'the account', EFFECT.by],
    ['features', namesWords(a.features), namesWords(b.features), EFFECT.next],
  ]
  if (a.kind === 'rate' && b.kind === 'rate') {
    return [
      ['meter', meterName(a.meter), meterName(b.meter), EFFECT.rate],
      ['limit', meterWords(a.limit, a.meter), meterWords(b.limit, b.meter), EFFECT.limit],
      ['per', formatDuration(a.perMs), formatDuration(b.perMs), EFFECT.rate],
      ['algorithm', a.algorithm, b.algorithm, EFFECT.rate],
      ['burst', burst(a), burst(b), EFFECT.limit],
      ...scope,
    ]
  }
  if (a.kind === 'budget' && b.kind === 'budget') {
    return [
      ['limit', cuWords(a.limit), cuWords(b.limit), EFFECT.limit],
      ['per', ruleWords(a.rule), ruleWords(b.rule), EFFECT.rule],
      ...scope,
    ]
  }
  return [['limit', String(a.limit), String(b.limit), EFFECT.limit], ...scope]
}

/** Told only where it is not the limit, which is its default. */
function burst(guard: Extract<Guard, { kind: 'rate' }>): string | undefined {
  return guard.capacity === guard.limit ? undefined : meterWords(guard.capacity, guard.meter)
}

function diffSources(place: Place, before: Plan, after: Plan, tell: Tell): void {
  pairs(
    named(before.waterfall.filter(isAllowance)),
    named(after.waterfall.filter(isAllowance)),
    (name, a, b) => {
      const at = { ...place, path: `${place.path}/waterfall/${name}` }
      const listed = (one: AllowanceSource) =>
        one.windows.map((window) => `${window.name} ${cuWords(window.limit)}`).join(', ')
      if (a === undefined || b === undefined) {
        return tell(presence(at, a && listed(a), b && listed(b), [EFFECT.added, EFFECT.removed]))
      }
      rows(
        at,
        [
          ['by', a.by ?? 'the account', b.by ?? 'the account', EFFECT.by],
          ['features', namesWords(a.features), namesWords(b.features), EFFECT.next],
        ],
        tell,
      )
      pairs(named(a.windows), named(b.windows), (window, was, is) => {
        const inside = { ...at, path: `${at.path}/${window}` }
        if (was !== undefined && is !== undefined) return rows(inside, windowRows(was, is), tell)
        const words = (one: typeof was) => one && `${cuWords(one.limit)} per ${ruleWords(one.rule)}`
        tell(presence(inside, words(was), words(is), [EFFECT.added, EFFECT.removed]))
      })
    },
  )
  const [old] = before.waterfall.filter((source) => source.kind === 'overage')
  const [fresh] = after.waterfall.filter((source) => source.kind === 'overage')
  const at = { ...place, path: `${place.path}/waterfall/overage` }
  if (old !== undefined && fresh !== undefined) rows(at, windowRows(old, fresh), tell)
  else if (old !== fresh)
    tell(
      presence(at, old && cuWords(old.limit), fresh && cuWords(fresh.limit), [EFFECT.added, EFFECT.removed]),
    )
}

const isAllowance = (source: Source): source is AllowanceSource => source.kind === 'allowance'

type Windowed = Pick<AllowanceSource['windows'][number], 'limit' | 'rule'>
function windowRows(a: Windowed, b: Windowed): readonly Row[] {
  return [
    ['limit', cuWords(a.limit), cuWords(b.limit), EFFECT.limit],
    ['per', ruleWords(a.rule), ruleWords(b.rule), EFFECT.rule],
  ]
}

function grantRows(a: RecurringGrant, b: RecurringGrant): readonly Row[] {
  return [
    ['kind', a.kind, b.kind, EFFECT.grant],
    ['amount', cuWords(a.amount), cuWords(b.amount), EFFECT.grant],
    ['every', ruleWords(a.every), ruleWords(b.every), EFFECT.grant],
    ['rollover', cuWords(a.rollover), cuWords(b.rollover), 'at the end of the present period'],
    ['priority', String(a.priority), String(b.priority), EFFECT.grant],
    ['features', namesWords(a.features), namesWords(b.features), EFFECT.grant],
  ]
}

/** How requests are treated, beside limits and sources. */
function conductRows(a: Plan, b: Plan): readonly Row[] {
  const absorb = ({ shortfall }: Plan) =>
    shortfall && `${cuWords(shortfall.absorbMicros)} per ${ruleWords(shortfall.rule)}`
  const low = (plan: Plan) => plan.lowBalanceMicros.map(cuWords).join(', ') || undefined
  return [
    ['on_shortfall/absorb', absorb(a), absorb(b), EFFECT.limit],
    ['hold/ttl', formatDuration(a.hold.ttlMs), formatDuration(b.hold.ttlMs), EFFECT.hold],
    [
      'hold/max_lifetime',
      formatDuration(a.hold.maxLifetimeMs),
      formatDuration(b.hold.maxLifetimeMs),
      EFFECT.hold,
    ],
    ['hold/on_expiry', a.hold.onExpiry, b.hold.onExpiry, EFFECT.hold],
    ['patience', formatDuration(a.patienceMs), formatDuration(b.patienceMs), EFFECT.next],
    ['low_balance', low(a), low(b), EFFECT.balance],
  ]
}
