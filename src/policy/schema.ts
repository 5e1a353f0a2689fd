/**
 * A policy as its owner writes it. One schema gives three things: the type for `definePolicy()`, the JSON Schema that
 * editors complete from, and the table that `shape.ts` checks a document against. `chosenBy` is Sluice's own keyword: the
 * keys that tell the variants of a union apart, so that a mistake is complained about once and in its own variant.
 */
import { type Static, Type } from 'typebox'
import { GRANT_KINDS } from '../ledger/grants.ts'
import {
  ANCHOR,
  amount,
  anchor,
  BOUNDS,
  DIMENSION,
  DURATION,
  type DurationText,
  dimension,
  duration,
  EXPECTS_DIMENSION,
  EXPECTS_FEATURE,
  EXPECTS_ID,
  EXPECTS_NAME,
  EXPECTS_USAGE_DIMENSION,
  FEATURE,
  featureList,
  ID,
  list,
  NAME,
  oneOf,
  optional,
  period,
  price,
  quantities,
  record,
  stateName,
  strict,
  text,
  USAGE_DIMENSION,
  WEEK,
  weekStart,
  windowed,
} from './fields.ts'

const RateLineSchema = strict(
  {
    when: optional(
      record(
        ID,
        Type.Union([Type.String({ minLength: 1, maxLength: 256 }), Type.Number(), Type.Boolean()], {
          expects: 'text of 1 to 256 characters, a number, true or false',
        }),
        EXPECTS_ID,
        {
          description:
            'Attributes that must all have these values. Left out on the last line, which is the default.',
          minProperties: 1,
          maxProperties: BOUNDS.conditions,
        },
      ),
    ),
    per_million: optional(quantities(price('CU per million.'), 'CU per million of each quantity.')),
    per_unit: optional(quantities(price('CU per unit.'), 'CU per unit of each quantity.')),
    per_request: optional(price('CU for each request, whatever it used.')),
    multiply: optional(price('Multiplies every price of this line.')),
  },
  'One line of a rate card. The first whose conditions hold prices the use.',
)

const FeatureSchema = strict(
  {
    rate_card: optional(
      list(
        RateLineSchema,
        BOUNDS.lines,
        'Prices, the first matching line first. Without it callers name a cost themselves.',
      ),
    ),
    default_estimate: optional(
      quantities(
        amount('How much.'),
        'Quantities to hold where a request brings neither an estimate nor a cost.',
      ),
    ),
  },
  'What can be used, and what it costs.',
)

const guardBase = {
  name: stateName('Unique among the plan’s guards and allowances: live state is kept under it.'),
  by: dimension('The dimension whose every value is counted apart. Left out, the whole account is counted.'),
  features: featureList('Features it applies to; left out, all.'),
}
const RateGuardSchema = strict(
  {
    ...guardBase,
    rate: strict(
      {
        meter: text(
          ID,
          `\`requests\`, \`cost\` or the name of a quantity: ${EXPECTS_ID}`,
          '`requests`, `cost`, or a quantity.',
        ),
        limit: amount('How much is admitted in `per`: whole requests, CU, or units of the quantity.'),
        per: duration('The length over which the limit holds, at most 400d.'),
        algorithm: optional(oneOf(['gcra', 'sliding', 'fixed'], '`gcra` where it is left out.')),
        burst: optional(
          amount('Only with `gcra`: the most that is admitted at once; the limit where it is left out.'),
        ),
      },
      'How much may begin in a length of time.',
    ),
  },
  'A rate: counted when a request is admitted.',
)
const ConcurrencyGuardSchema = strict(
  {
    ...guardBase,
    concurrency: Type.Integer({
      minimum: 1,
      maximum: BOUNDS.concurrency,
      expects: `a whole number from 1 to ${BOUNDS.concurrency}`,
      description: 'How many holds may be open at once.',
    }),
  },
  'A bound on what runs at once.',
)
const BudgetGuardSchema = strict(
  {
    ...guardBase,
    budget: amount('CU that may be used and held in each window, from whatever source.'),
    ...windowed('The length of a window: `month`, `7d`.'),
  },
  'A bound on cost, whoever pays.',
)
export const GUARD_KEYS = ['rate', 'concurrency', 'budget'] as const
const GuardSchema = Type.Union([RateGuardSchema, ConcurrencyGuardSchema, BudgetGuardSchema], {
  chosenBy: GUARD_KEYS,
  description: 'A limit that never pays, only blocks or delays.',
})

const AllowanceWindowSchema = strict(
  {
    name: text(NAME, EXPECTS_NAME, 'Unique in the allowance: live state is kept under it.'),
    limit: amount('CU that this window lets through.'),
    ...windowed(
      'The length of a window. A fixed length opens at first use, a calendar unit follows the calendar.',
    ),
  },
  'A window that must have room.',
)
const AllowanceSchema = strict(
  {
    allowance: stateName('Unique among the plan’s guards and allowances: live state is kept under it.'),
    by: guardBase.by,
    features: featureList('Features it pays for; left out, all.'),
    windows: list(AllowanceWindowSchema, BOUNDS.windows, 'All of them must have room.'),
  },
  'What the plan includes: pays as long as all its windows have room.',
)
const grantKind = (description: string) => oneOf(GRANT_KINDS, description)
const CreditsSchema = strict(
  {
    credits: list(grantKind('A kind of grant.'), GRANT_KINDS.length, 'Grants of these kinds, in burn order.'),
  },
  'Credits.',
)
const OverageSchema = strict(
  {
    overage: strict(
      { limit: amount('CU in each window.'), ...windowed('The length of a window.') },
      'Used now, paid later.',
    ),
  },
  'Overage.',
)
export const SOURCE_KEYS = ['allowance', 'credits', 'overage'] as const
const SourceSchema = Type.Union([AllowanceSchema, CreditsSchema, OverageSchema], {
  chosenBy: SOURCE_KEYS,
  description: 'Something that pays.',
})

const RecurringGrantSchema = strict(
  {
    kind: grantKind('The kind of the credits.'),
    amount: amount('CU in each grant.'),
    every: optional(period('How often it recurs; left out, it comes once and does not expire.')),
    anchor: anchor(ANCHOR),
    week_start: weekStart(WEEK),
    rollover: optional(amount('The most of what is left that lives for one period more.')),
    name: optional(stateName('Unique among the plan’s grants; the kind where it is left out.')),
    priority: optional(
      Type.Integer({
        minimum: 0,
        maximum: 1_000_000,
        expects: 'a whole number from 0 to 1000000',
        description: 'Lower burns first; 100.',
      }),
    ),
    features: featureList('Features it pays for; left out, all.'),
  },
  'Credits that come with the plan.',
)

const PlanSchema = strict(
  {
    class: optional(
      oneOf(
        ['critical', 'standard', 'sheddable'],
        'Under load `sheddable` is refused first, `critical` last.',
      ),
    ),
    features: featureList('What the plan allows; left out, every feature.'),
    subjects: optional(
      record(
        DIMENSION,
        strict(
          {
            max: Type.Integer({
              minimum: 1,
              maximum: BOUNDS.subjects,
              expects: `a whole number from 1 to ${BOUNDS.subjects}`,
              description: 'How many distinct values an account may have.',
            }),
          },
          'A bound on a dimension.',
        ),
        EXPECTS_DIMENSION,
        {
          description: 'Bounds on how many users, teams or keys an account may have.',
          maxProperties: BOUNDS.dimensions,
        },
      ),
    ),
    guards: optional(list(GuardSchema, BOUNDS.guards, 'Limits, asked in this order.', 0)),
    waterfall: list(SourceSchema, BOUNDS.sources, 'Who pays, in this order.'),
    grants: optional(list(RecurringGrantSchema, BOUNDS.grants, 'Credits that come with the plan.', 0)),
    on_shortfall: optional(
      strict(
        {
          absorb: amount('CU in each window that are given away; beyond it the account is in debt.'),
          ...windowed('The length of a window.'),
        },
        'What happens when a request cost more than anything can pay.',
      ),
    ),
    hold: optional(
      strict(
        {
          ttl: optional(duration('How long a hold lives unless it is extended; 10m.')),
          max_lifetime: optional(duration('How far extending can move its end; 24h, at most 35d.')),
          on_expiry: optional(
            oneOf(['release', 'charge'], 'What happens to a hold that nobody closed; `release`.'),
          ),
        },
        'How long holds live.',
      ),
    ),
    patience: optional(
      text<DurationText>(
        `^(?:0s|${DURATION})$`,
        'a length such as `0s`, `30s` or `1h`',
        'The longest wait that is still a `wait`; 1h.',
      ),
    ),
    low_balance: optional(
      list(
        amount('CU of credits left.'),
        BOUNDS.thresholds,
        'Descending; each crossing becomes an entry.',
        0,
      ),
    ),
  },
  'What a customer may use, and who pays for it.',
)

export const PolicySchema = strict(
  {
    $schema: optional(
      Type.String({
        expects: 'the address of a JSON Schema',
        description: 'For editors; Sluice does not read it.',
      }),
    ),
    features: record(FEATURE, FeatureSchema, EXPECTS_FEATURE, {
      description: 'What can be used, and what it costs.',
      minProperties: 1,
      maxProperties: BOUNDS.features,
    }),
    plans: record(NAME, PlanSchema, EXPECTS_NAME, {
      description: 'What customers may use, and who pays.',
      minProperties: 1,
      maxProperties: BOUNDS.plans,
    }),
    default_plan: optional(
      text(NAME, EXPECTS_NAME, 'The plan on which an unknown account’s first request makes it.'),
    ),
    week_start: weekStart('The first day of every calendar week that does not say otherwise.'),
    usage: optional(
      strict(
        {
          dimensions: optional(
            list(
              text(
                USAGE_DIMENSION,
                EXPECTS_USAGE_DIMENSION,
                '`endpoint`, `subject.<dimension>` or `attributes.<name>`; `feature` always is one.',
              ),
              BOUNDS.usageDimensions,
              'What totals of usage are kept apart by. Left out: `endpoint`, and attributes that rate cards name in `when`.',
              0,
            ),
          ),
        },
        'How usage is summed for reports.',
      ),
    ),
  },
  'A Sluice policy: features with their prices, and plans.',
)

type Frozen<T> = T extends (infer U)[]
  ? readonly Frozen<U>[]
  : T extends object
    ? { readonly [K in keyof T]: Frozen<T[K]> }
    : T

/** A policy as it is written. Values that the types cannot tell (a seventh decimal, an unknown name) are checked when it is compiled. */
export type PolicyDocument = Frozen<Static<typeof PolicySchema>>
export type FeatureDocument = Frozen<Static<typeof FeatureSchema>>
export type RateLineDocument = Frozen<Static<typeof RateLineSchema>>
export type PlanDocument = Frozen<Static<typeof PlanSchema>>
export type GuardDocument = Frozen<Static<typeof GuardSchema>>
export type SourceDocument = Frozen<Static<typeof SourceSchema>>
export type RecurringGrantDocument = Frozen<Static<typeof RecurringGrantSchema>>

const OWN_KEYWORDS = new Set(['expects', 'expectsKey', 'chosenBy'])

/** The JSON Schema (2020-12) of a policy, with descriptions, for editors. A fresh copy at each call. */
export function policyJsonSchema(): Record<string, unknown> {
  const plain = JSON.parse(
    JSON.stringify(PolicySchema, (key, value) => (OWN_KEYWORDS.has(key) ? undefined : value)),
  )
  return { $schema: 'https://json-schema.org/draft/2020-12/schema', title: 'Sluice policy', ...plain }
}
