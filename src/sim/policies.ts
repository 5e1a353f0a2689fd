/** Random policies: small numbers, so that limits are met, and every kind of guard, source and grant. */
import type {
  GuardDocument,
  PlanDocument,
  PolicyDocument,
  RecurringGrantDocument,
  SourceDocument,
} from '../policy/schema.ts'
import type { Random } from './random.ts'

/** A prices by lines and has a default, b by one line and has none, c is told its cost. */
export const FEATURES: PolicyDocument['features'] = {
  'a.chat': {
    rate_card: [
      { when: { model: 'big' }, per_unit: { tokens: '1.5' }, per_request: '0.5', multiply: 2 },
      { per_unit: { tokens: 0.5 }, per_million: { bytes: '3.3333' } },
    ],
    default_estimate: { tokens: 6 },
  },
  'b.video': {
    rate_card: [{ when: { model: 'big' }, per_unit: { seconds: '2.5' } }, { per_unit: { seconds: 1 } }],
  },
  c: {},
}

const NAMES = ['one', 'two', 'three'] as const
const BY = [undefined, 'user', 'user', 'team'] as const
const FEATURE_LISTS = [undefined, undefined, undefined, ['a.*'], ['b.video', 'c']] as const
const WINDOWS = [
  { per: '5h' },
  { per: '90s' },
  { per: '7d' },
  { per: '1d', anchor: 'account' },
  { per: '5h', anchor: 'first_use' },
  { per: 'hour' },
  { per: 'day' },
  { per: 'day', anchor: 'account' },
  { per: 'week', week_start: 'sunday' },
  { per: 'week', anchor: 'calendar' },
  { per: 'month' },
  { per: 'month', anchor: 'account' },
] as const
/** Nothing shorter than five hours, so that a jump of forty days is not a thousand grants. */
const PERIODS = WINDOWS.filter(
  (one) => !('anchor' in one && one.anchor === 'first_use') && one.per !== '90s' && one.per !== 'hour',
)
const CREDITS = [
  [['free', 'promo', 'plan', 'enterprise', 'adjustment'], ['purchased']],
  [['purchased', 'plan', 'free', 'promo', 'enterprise', 'adjustment']],
  [['plan'], ['adjustment', 'free', 'purchased']],
] as const

const defined = <T extends object>(value: T): { [K in keyof T]: Exclude<T[K], undefined> } =>
  Object.fromEntries(Object.entries(value).filter(([, one]) => one !== undefined)) as never

const amount = (random: Random, most: number): string => {
  const whole = random.int(0, most)
  return random.once(6) ? `${whole}.${random.pick(['5', '25', '000001', '333333'])}` : String(whole)
}

function guard(random: Random, name: string): GuardDocument {
  const base = defined({ name, by: random.pick(BY), features: random.pick(FEATURE_LISTS) })
  if (name.startsWith('places')) return { ...base, concurrency: random.int(1, 3) }
  if (name.startsWith('budget')) {
    return { ...base, budget: amount(random, 30), ...random.pick(WINDOWS) } as GuardDocument
  }
  const meter = name.startsWith('requests')
    ? 'requests'
    : name.startsWith('cost')
      ? 'cost'
      : random.pick(['tokens', 'seconds'])
  const algorithm = random.pick(['gcra', 'sliding', 'fixed', undefined] as const)
  const limit = random.int(1, meter === 'requests' ? 5 : 40)
  const burst = algorithm === 'gcra' && random.once(3) ? random.int(1, 40) : undefined
  const per = random.pick(['10s', '1m', '1h', '1d'] as const)
  return { ...base, rate: defined({ meter, limit, per, algorithm, burst }) }
}

function waterfall(random: Random): SourceDocument[] {
  const sources: SourceDocument[] = []
  for (const name of NAMES.slice(0, random.int(0, 2))) {
    const windows = Array.from({ length: random.int(1, 2) }, (_, place) => ({
      name: `w${place}`,
      limit: amount(random, 20),
      ...random.pick(WINDOWS),
    }))
    sources.push(
      defined({
        allowance: name,
        by: random.pick(BY),
        features: random.pick(FEATURE_LISTS),
        windows,
      }) as SourceDocument,
    )
  }
  if (sources.length === 0 || !random.once(5))
    for (const kinds of random.pick(CREDITS)) sources.push({ credits: [...kinds] })
  if (random.once(2))
    sources.push({ overage: { limit: amount(random, 15), ...random.pick(WINDOWS) } } as SourceDocument)
  return sources
}

function planGrant(random: Random, name: string): RecurringGrantDocument {
  const once = random.once(4)
  return defined({
    name,
    kind: random.pick(['plan', 'plan', 'free', 'enterprise'] as const),
    amount: String(random.int(1, 20)),
    rollover: once || random.once(2) ? undefined : amount(random, 12),
    priority: random.once(3) ? random.int(0, 120) : undefined,
    features: random.once(5) ? ['a.*'] : undefined,
    ...(once ? {} : renamed(random.pick(PERIODS))),
  }) as RecurringGrantDocument
}

function renamed({ per, ...rest }: (typeof PERIODS)[number]): object {
  return { every: per, ...rest }
}

function plan(random: Random): PlanDocument {
  const guards = ['requests', 'cost', 'quantity', 'places', 'budget', 'budget-two']
    .filter(() => random.once(3))
    .map((name) => guard(random, name))
  const grants = ['gift', 'monthly'].filter(() => random.once(2)).map((name) => planGrant(random, name))
  const ttl = random.pick(['30s', '10m', '3h', undefined] as const)
  return defined({
    features: random.once(6) ? ['a.*', 'c'] : undefined,
    subjects: random.once(5) ? { user: { max: 2 } } : undefined,
    guards: guards.length === 0 ? undefined : guards,
    waterfall: waterfall(random),
    grants: grants.length === 0 ? undefined : grants,
    on_shortfall: random.once(2) ? { absorb: amount(random, 8), ...random.pick(WINDOWS) } : undefined,
    hold:
      ttl === undefined
        ? undefined
        : { ttl, max_lifetime: '4h', on_expiry: random.pick(['release', 'charge'] as const) },
    patience: random.pick(['0s', '1h', '30d', undefined] as const),
    low_balance: random.once(4) ? ['10', '0'] : undefined,
  }) as PlanDocument
}

export function randomPolicy(random: Random): PolicyDocument {
  return { features: FEATURES, plans: { basic: plan(random), other: plan(random) } }
}

/** The same policy a while later: limits have moved, something has come or gone. */
export function laterPolicy(random: Random, policy: PolicyDocument, version: number): PolicyDocument {
  const plans = Object.entries(policy.plans).map(([name, one]) => [name, laterPlan(random, one, version)])
  return { ...policy, plans: Object.fromEntries(plans) }
}

function laterPlan(random: Random, old: PlanDocument, version: number): PlanDocument {
  const guards = (old.guards ?? []).flatMap((one): GuardDocument[] => {
    if (random.once(6)) return []
    if (random.once(2)) return [one]
    if ('budget' in one) return [{ ...one, budget: amount(random, 30) }]
    if ('concurrency' in one) return [{ ...one, concurrency: random.int(1, 3) }]
    return [{ ...one, rate: { ...one.rate, limit: random.int(1, one.rate.meter === 'requests' ? 5 : 40) } }]
  })
  // Another name for what comes new: state is kept by name, and what a gone name left may have gone or not.
  if (random.once(4))
    guards.push(guard(random, `${random.pick(['requests', 'cost', 'places', 'budget'])}-v${version}`))
  const sources = old.waterfall.flatMap((one): SourceDocument[] => {
    if ('credits' in one) return [one]
    if ('overage' in one)
      return random.once(6) ? [] : [{ overage: { ...one.overage, limit: amount(random, 15) } }]
    const windows = one.windows.map((window) =>
      random.once(3)
        ? window
        : random.once(3)
          ? { name: window.name, limit: window.limit, ...random.pick(WINDOWS) }
          : { ...window, limit: amount(random, 20) },
    )
    return random.once(8) ? [] : [{ ...one, windows } as SourceDocument]
  })
  const grants = (old.grants ?? []).flatMap((one): RecurringGrantDocument[] =>
    random.once(5) ? [] : [random.once(2) ? one : { ...one, amount: String(random.int(1, 20)) }],
  )
  if (random.once(4)) grants.push(planGrant(random, `extra-v${version}`))
  return {
    ...old,
    guards,
    grants,
    waterfall: sources.length > 0 ? sources : [{ credits: ['free', 'purchased'] }],
  }
}
