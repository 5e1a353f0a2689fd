import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import fc from 'fast-check'
import { SluiceError } from '../errors.ts'
import { checkPolicy, compilePolicy } from './compile.ts'
import { definePolicy } from './define.ts'
import type { PolicyDocument } from './schema.ts'

const example = (name: string): string =>
  readFileSync(new URL(`../../examples/${name}.yaml`, import.meta.url), 'utf8')

for (const name of ['minimal', 'codex-and-sora']) {
  test(`the example ${name} compiles without complaints or warnings`, () => {
    const { complaints, warnings } = checkPolicy(example(name))
    assert.deepEqual({ complaints, warnings }, { complaints: [], warnings: [] })
  })
}

test('a policy of the size of the example compiles within 20 ms', () => {
  const text = example('codex-and-sora')
  const times = Array.from({ length: 15 }, () => {
    const from = performance.now()
    compilePolicy(1, text)
    return performance.now() - from
  })
  // The best of several: the machine may be busy with something else.
  assert.ok(Math.min(...times) < 20, `took ${Math.min(...times)} ms`)
})

const features = { chat: { rate_card: [{ per_unit: { tokens: 1 } }] }, 'sora.video': {} }
const credits = { credits: ['free', 'promo', 'plan', 'enterprise', 'adjustment', 'purchased'] }
const whole = (plan: object, rest: object = {}): unknown => ({
  features,
  plans: { p: { waterfall: [credits], ...plan } },
  ...rest,
})
const guard = (fields: object): unknown => whole({ guards: [{ name: 'g', ...fields }] })
const rate = (fields: object): unknown =>
  guard({ rate: { meter: 'requests', limit: 1, per: '1m', ...fields } })
const source = (...sources: object[]): unknown => whole({ waterfall: sources })
const window = (fields: object, ...more: object[]): unknown =>
  source({ allowance: 'a', windows: [{ name: 'w', limit: 1, per: '1d', ...fields }, ...more] })
const grant = (fields: object): unknown => whole({ grants: [{ kind: 'plan', amount: '1', ...fields }] })
const card = (...lines: unknown[]): unknown => ({
  ...(whole({}) as object),
  features: { f: { rate_card: lines } },
})
const G = '/plans/p/guards/0'
const W = '/plans/p/waterfall/0'
const L = '/features/f/rate_card'

/** What is written, where the complaint points, and a part of what it says. */
const COMPLAINTS: readonly (readonly [document: unknown, path: string, message: RegExp])[] = [
  [null, '', /must be an object, not null/],
  [[], '', /must be an object, not a list/],
  [{ plans: {} }, '', /`features` is missing/],
  [{ features: {}, plans: whole({}) }, '/features', /must not be empty/],
  [whole({}, { plan: {} }), '/plan', /did you mean `plans`/],
  [whole({}, { zzz: 1 }), '/zzz', /known are `\$schema`, `features`/],
  [whole({}, { default_plan: 'q' }), '/default_plan', /must name a plan of this policy: "q" is none of p/],
  [
    whole({}, { usage: { dimensions: ['model'] } }),
    '/usage/dimensions/0',
    /must be `feature`, `endpoint`, `subject.<dimension>` or `attributes.<name>`, not "model"/,
  ],
  [whole({}, { usage: { dimensions: 'endpoint' } }), '/usage/dimensions', /must be a list/],
  [whole({}, { usage: { groups: [] } }), '/usage/groups', /must be left out|known are `dimensions`/],
  [
    whole({}, { usage: { dimensions: Array.from({ length: 9 }, (_, n) => `subject.d${n}`) } }),
    '/usage/dimensions',
    /at most 8/,
  ],
  [whole({}, { week_start: 'mon' }), '/week_start', /one of `monday`, `tuesday`/],
  [{ ...(whole({}) as object), features: { A: {} } }, '/features/A', /lower-case letters/],
  [
    { ...(whole({}) as object), features: { constructor: {} } },
    '/features/constructor',
    /lower-case letters/,
  ],
  [{ features, plans: { 'P q': { waterfall: [credits] } } }, '/plans/P q', /lower-case letters/],
  [{ features, plans: { 2026: { waterfall: [credits] } } }, '/plans/2026', /not of digits alone/],
  [whole({ waterfall: [] }), '/plans/p/waterfall', /must not be an empty list/],
  [{ features, plans: { p: {} } }, '/plans/p', /`waterfall` is missing: a list/],
  [whole({ class: 'vip' }), '/plans/p/class', /one of `critical`, `standard`, `sheddable`/],
  [whole({ features: [] }), '/plans/p/features', /must not be an empty list/],
  [whole({ features: ['codex.*'] }), '/plans/p/features/0', /must match a feature of this policy/],
  [whole({ features: ['*x'] }), '/plans/p/features/0', /its beginning and `\*`/],
  [whole({ subjects: { user: { max: 0 } } }), '/plans/p/subjects/user/max', /from 1 to 1000000/],
  [whole({ subjects: { User: { max: 1 } } }), '/plans/p/subjects/User', /beginning with a letter/],
  // Guards.
  [guard({}), G, /must have one of `rate`, `concurrency`, `budget`/],
  [guard({ concurency: 3 }), G, /did you mean `concurrency`/],
  [guard({ concurrency: 3, budget: 1, per: '1d' }), G, /only one of `concurrency`, `budget`/],
  [whole({ guards: [5] }), G, /must be an object with one of `rate`/],
  [guard({ concurrency: 0 }), `${G}/concurrency`, /a whole number from 1 to 2000, not 0/],
  [guard({ concurrency: 2001 }), `${G}/concurrency`, /from 1 to 2000/],
  [guard({ concurrency: 1.5 }), `${G}/concurrency`, /a whole number/],
  [guard({ concurrency: 1, name: 'overage' }), `${G}/name`, /none of `constructor`, `overage`, `absorb`/],
  [guard({ concurrency: 1, name: 'constructor' }), `${G}/name`, /none of/],
  [guard({ concurrency: 1, by: 'User' }), `${G}/by`, /beginning with a letter/],
  [guard({ concurrency: 1, features: ['x'] }), `${G}/features/0`, /matches none of them/],
  [rate({ limit: 1.5 }), `${G}/rate/limit`, /a whole number of requests, not 1.5/],
  [rate({ limit: 0 }), `${G}/rate/limit`, /more than zero/],
  [rate({ limit: -1 }), `${G}/rate/limit`, /not negative/],
  [rate({ limit: '1.1234567' }), `${G}/rate/limit`, /at most six decimals/],
  [rate({ meter: 'a b' }), `${G}/rate/meter`, /`requests`, `cost` or the name of a quantity/],
  [rate({ meter: 'toString' }), `${G}/rate/meter`, /no name that every object has/],
  [rate({ per: '0s' }), `${G}/rate/per`, /a length such as/],
  [rate({ per: 'day' }), `${G}/rate/per`, /a length such as/],
  [rate({ per: '401d' }), `${G}/rate/per`, /at most 400d, not 401d/],
  [rate({ algorithm: 'leaky' }), `${G}/rate/algorithm`, /one of `gcra`, `sliding`, `fixed`/],
  [rate({ algorithm: 'fixed', burst: 2 }), `${G}/rate/burst`, /only `gcra` has a burst/],
  [rate({ burst: 0 }), `${G}/rate/burst`, /more than zero/],
  [guard({ budget: '10000000000', per: 'month' }), `${G}/budget`, /must be an amount/],
  [guard({ budget: '9007199254.740992', per: 'month' }), `${G}/budget`, /at most 9007199254.740991/],
  [guard({ budget: 1e-7, per: 'month' }), `${G}/budget`, /at most six decimals/],
  [guard({ budget: 1, per: 'year' }), `${G}/per`, /one of `hour`, `day`, `week`, `month`/],
  [guard({ budget: 1 }), G, /`per` is missing/],
  [guard({ budget: 1, per: '7d', anchor: 'calendar' }), `${G}/per`, /must be one of `hour`/],
  [
    guard({ budget: 1, per: 'month', anchor: 'first_use' }),
    `${G}/per`,
    /a length such as `7d` with `anchor: first_use`/,
  ],
  [guard({ budget: 1, per: 'month', week_start: 'sunday' }), `${G}/week_start`, /only for calendar weeks/],
  [
    guard({ budget: 1, per: 'week', anchor: 'account', week_start: 'sunday' }),
    `${G}/week_start`,
    /only for calendar weeks/,
  ],
  [
    whole({
      guards: [
        { name: 'x', concurrency: 1 },
        { name: 'x', budget: 1, per: '1d' },
      ],
    }),
    '/plans/p/guards/1/name',
    /"x" is the name of \/plans\/p\/guards\/0\/name/,
  ],
  [
    whole({
      guards: [{ name: 'a', concurrency: 1 }],
      waterfall: [{ allowance: 'a', windows: [{ name: 'w', limit: 1, per: '1d' }] }],
    }),
    `${W}/allowance`,
    /must be unique in the plan/,
  ],
  [
    whole({ guards: Array.from({ length: 65 }, (_, i) => ({ name: `g${i}`, concurrency: 1 })) }),
    '/plans/p/guards',
    /at most 64 items, not 65/,
  ],
  [
    whole({ guards: [1, 2].map((i) => ({ name: `g${i}`, concurrency: 2000 })) }),
    '/plans/p',
    /at most 40 KB of state.* the account may grow to 55 KB/,
  ],
  [
    whole({ guards: Array.from({ length: 9 }, (_, i) => ({ name: `g${i}`, concurrency: 1, by: `d${i}` })) }),
    '/plans/p',
    /at most 8 dimensions.*not 9/,
  ],
  // Sources.
  [source({ alowance: 'a' }), W, /did you mean `allowance`/],
  [
    source({ allowance: 'absorb', windows: [{ name: 'w', limit: 1, per: '1d' }] }),
    `${W}/allowance`,
    /none of/,
  ],
  [source({ allowance: 'a', windows: [] }), `${W}/windows`, /must not be an empty list/],
  [window({ per: '0d' }), `${W}/windows/0/per`, /a length such as/],
  [window({ per: '1month' }), `${W}/windows/0/per`, /a length such as/],
  [window({ anchor: 'calendar' }), `${W}/windows/0/per`, /must be one of `hour`/],
  [window({ anchor: 'birth' }), `${W}/windows/0/anchor`, /one of `first_use`, `calendar`, `account`/],
  [window({}, { name: 'w', limit: 2, per: '7d' }), `${W}/windows/1/name`, /unique in the allowance/],
  [source({ credits: [] }), `${W}/credits`, /must not be an empty list/],
  [source({ credits: ['gift'] }), `${W}/credits/0`, /one of `free`, `promo`/],
  [
    source({ credits: ['free'] }, { credits: ['free'] }),
    '/plans/p/waterfall/1/credits/0',
    /only once in the waterfall/,
  ],
  [
    source({ overage: { limit: 1, per: 'month' } }, { overage: { limit: 1, per: 'day' } }),
    '/plans/p/waterfall/1',
    /the only overage/,
  ],
  [source({ overage: { limit: 1 } }), `${W}/overage`, /`per` is missing/],
  // Grants, shortfall, holds.
  [grant({ amount: 0 }), '/plans/p/grants/0/amount', /more than zero/],
  [grant({ kind: 'bonus' }), '/plans/p/grants/0/kind', /one of/],
  [grant({ rollover: 1 }), '/plans/p/grants/0/rollover', /or `every` be given/],
  [grant({ anchor: 'account' }), '/plans/p/grants/0/anchor', /or `every` be given/],
  [
    grant({ every: '7d', anchor: 'first_use' }),
    '/plans/p/grants/0/anchor',
    /must be `calendar` or `account`/,
  ],
  [grant({ every: '7d', anchor: 'calendar' }), '/plans/p/grants/0/every', /must be one of `hour`/],
  [grant({ priority: -1 }), '/plans/p/grants/0/priority', /from 0 to 1000000/],
  [grant({ features: ['nope'] }), '/plans/p/grants/0/features/0', /matches none/],
  [
    whole({ grants: [1, 2].map(() => ({ kind: 'plan', amount: 1 })) }),
    '/plans/p/grants/1',
    /give it a `name`/,
  ],
  [
    whole({ grants: [1, 2].map(() => ({ kind: 'plan', amount: 1, name: 'n' })) }),
    '/plans/p/grants/1/name',
    /choose another/,
  ],
  [whole({ on_shortfall: { absorb: 1 } }), '/plans/p/on_shortfall', /`per` is missing/],
  [whole({ hold: { ttl: '2h', max_lifetime: '1h' } }), '/plans/p/hold/ttl', /at most `max_lifetime`, 1h/],
  [whole({ hold: { max_lifetime: '36d' } }), '/plans/p/hold/max_lifetime', /at most 35d/],
  [whole({ hold: { on_expiry: 'keep' } }), '/plans/p/hold/on_expiry', /one of `release`, `charge`/],
  [whole({ patience: 'soon' }), '/plans/p/patience', /such as `0s`/],
  [whole({ low_balance: ['1', '2'] }), '/plans/p/low_balance/1', /thresholds descend/],
  [whole({ low_balance: ['1', '1'] }), '/plans/p/low_balance/1', /thresholds descend/],
  // Prices.
  [card(), L, /must not be an empty list/],
  [card({}), `${L}/0`, /must have a price/],
  [card({ when: {}, per_request: 1 }), `${L}/0/when`, /must not be empty/],
  [
    card({ when: { m: null }, per_request: 1 }),
    `${L}/0/when/m`,
    /text of 1 to 256 characters, a number, true or false, not null/,
  ],
  [card({ when: { m: 'a\0' }, per_request: 1 }), `${L}/0/when/m`, /without NUL/],
  [card({ when: { m: '\ud800' }, per_request: 1 }), `${L}/0/when/m`, /valid Unicode/],
  [card({ when: { valueOf: 1 }, per_request: 1 }), `${L}/0/when/valueOf`, /no name that every object has/],
  [card({ per_unit: { 'a b': 1 } }), `${L}/0/per_unit/a b`, /printable ASCII/],
  [card({ per_unit: { s: -1 } }), `${L}/0/per_unit/s`, /not negative/],
  [card({ per_unit: { s: '1e3' } }), `${L}/0/per_unit/s`, /a price such as/],
  [card({ per_unit: { s: 0.1 + 0.2 } }), `${L}/0/per_unit/s`, /exact decimal/],
  [card({ per_unit: { s: 1e22 } }), `${L}/0/per_unit/s`, /exact decimal/],
  [card({ per_million: { s: '0.0000000000001' } }), `${L}/0/per_million/s`, /at most twelve/],
  [card({ per_request: 1e-13 }), `${L}/0/per_request`, /exact decimal/],
  [card({ per_unit: {} }), `${L}/0/per_unit`, /must not be empty/],
  [card({ per_unit: { s: 1 }, per_million: { s: 1 } }), `${L}/0/per_unit/s`, /priced once/],
  [card({ per_request: 1, multiply: 'twice' }), `${L}/0/multiply`, /a price/],
  [
    card({ per_request: 1 }, { when: { m: 'a' }, per_request: 2 }),
    `${L}/1`,
    /`rate_card\/0` has no `when` and must be the last/,
  ],
  [card({ per_request: 1 }, { per_request: 2 }), `${L}/1`, /must be the last/],
  [
    card({ when: { m: 'a' }, per_request: 1 }, { when: { x: 1, m: 'a' }, per_request: 2 }),
    `${L}/1`,
    /`rate_card\/0` matches everything/,
  ],
  [
    card({ when: { x: '1', m: 'a' }, per_request: 1 }, { when: { m: 'a', x: 1 }, per_request: 2 }),
    `${L}/1`,
    /same conditions as `rate_card\/0`/,
  ],
  [
    { ...(whole({}) as object), features: { f: { default_estimate: { s: 1 } } } },
    '/features/f/default_estimate',
    /or `rate_card` be given/,
  ],
  [
    {
      ...(whole({}) as object),
      features: { f: { rate_card: [{ per_request: 1 }], default_estimate: { s: 1e10 } } },
    },
    '/features/f/default_estimate/s',
    /a quantity of at most six decimals/,
  ],
  // What is no JSON.
  [whole({ patience: new Date(0) }), '/plans/p/patience', /a value that JSON has/],
  [whole({ patience: Number.NaN }), '/plans/p/patience', /a value that JSON has/],
  [whole({ patience: 1n }), '/plans/p/patience', /a value that JSON has/],
  [JSON.parse('{ "__proto__": {} }'), '', /a key `__proto__`/],
]

for (const [document, path, message] of COMPLAINTS) {
  test(`${path || 'the document'} is refused: ${message.source}`, () => {
    const { complaints } = checkPolicy(document)
    const there = complaints.filter((complaint) => complaint.path === path)
    assert.ok(
      there.some((complaint) => message.test(complaint.message)),
      `complained of: ${JSON.stringify(complaints, null, 1)}`,
    )
  })
}

test('one mistake is complained about once, and does not echo', () => {
  const once: readonly unknown[] = [
    card({ per_request: -1 }),
    { ...(whole({}) as object), features: { f: { rate_card: 5, default_estimate: { s: 1 } } } },
    grant({ every: 'yearly', rollover: 1 }),
    whole({ features: ['b*'] }, { features: { b: { rate_card: [{}] } } }),
    whole({ class: 5 }, { default_plan: 'p' }),
    card({ when: { m: null, x: 1 }, per_request: 1 }, { when: { x: 1, m: 'a' }, per_request: 1 }),
  ]
  for (const document of once)
    assert.equal(checkPolicy(document).complaints.length, 1, JSON.stringify(document))
})

test('all complaints come at once, with line and column, in the order of the text', () => {
  const text =
    'features:\n  f: { rate_card: [{ per_request: x }] }\nplans:\n  p:\n    guards:\n      - { name: g, concurrency: 0 }\n    waterfall: []\n    hod: {}\n'
  const { complaints } = checkPolicy(text)
  assert.deepEqual(
    complaints.map(({ path, line, column }) => [path, line, column]),
    [
      ['/features/f/rate_card/0/per_request', 2, 22],
      ['/plans/p/guards/0/concurrency', 6, 20],
      ['/plans/p/waterfall', 7, 5],
      ['/plans/p/hod', 8, 5],
    ],
  )
  assert.throws(
    () => compilePolicy(1, text),
    (error) => {
      assert.ok(error instanceof SluiceError && error.code === 'policy_invalid')
      assert.deepEqual(error.detail.complaints, complaints)
      assert.match(error.message, /\/features\/f\/rate_card\/0\/per_request must be a price.*and 3 more/)
      return true
    },
  )
})

test('a number in `when` that YAML would shorten must be quoted', () => {
  const text = (version: string) =>
    `features: { f: { rate_card: [{ when: { version: ${version} }, per_request: 1 }] } }\nplans: { p: { waterfall: [{ credits: [free] }] } }`
  assert.match(
    checkPolicy(text('4.0')).complaints[0]?.message ?? '',
    /must be quoted: 4.0 is read as the number 4/,
  )
  for (const [written, value] of [
    ['"4.0"', '4.0'],
    ['4.5', '4.5'],
    ['true', 'true'],
  ] as const) {
    assert.deepEqual(compilePolicy(1, text(written)).features.get('f')?.card.lines[0]?.when, [
      ['version', value],
    ])
  }
})

const WARNINGS: readonly (readonly [document: unknown, path: string, message: RegExp])[] = [
  [
    whole({ features: ['chat'], waterfall: [credits, { overage: { limit: 1, per: 'month' } }] }),
    '/features/sora.video',
    /allowed by no plan/,
  ],
  [card({ when: { m: 'a' }, per_request: 1 }), L, /no last line without `when`/],
  [card({ per_unit: { requests: 1 } }), '/features/f', /`meter: requests` means something else/],
  [
    {
      ...(whole({}) as object),
      features: { f: { rate_card: [{ per_request: 1 }], default_estimate: { s: 1 } } },
    },
    '/features/f/default_estimate/s',
    /priced by no line/,
  ],
  [rate({ meter: 'gpu_seconds' }), `${G}/rate/meter`, /no price of its features mentions/],
  [
    whole({ features: ['chat'], guards: [{ name: 'g', concurrency: 1, features: ['sora.*'] }] }),
    G,
    /never applies/,
  ],
  [
    whole({
      features: ['chat'],
      waterfall: [{ allowance: 'a', features: ['sora.*'], windows: [{ name: 'w', limit: 1, per: '1d' }] }],
    }),
    W,
    /never pays/,
  ],
  [
    whole({ waterfall: [{ credits: ['free'] }], grants: [{ kind: 'plan', amount: 1 }] }),
    '/plans/p/grants/0/kind',
    /cannot be spent/,
  ],
  [
    whole({ waterfall: [{ credits: ['free', 'promo'] }] }),
    '/plans/p/waterfall',
    /plan, enterprise, purchased, adjustment/,
  ],
  [source({ overage: { limit: 1, per: 'month' } }, credits), '/plans/p/waterfall/1', /comes after overage/],
  [whole({}), '/plans/p', /refused until somebody grants them credits/],
  [grant({ every: '30s' }), '/plans/p/grants/0/every', /less than an hour/],
]

for (const [document, path, message] of WARNINGS) {
  test(`${path} is warned of: ${message.source}`, () => {
    const { complaints, warnings } = checkPolicy(document)
    assert.deepEqual(complaints, [])
    assert.ok(
      warnings.some((warning) => warning.path === path && message.test(warning.message)),
      `warned of: ${JSON.stringify(warnings, null, 1)}`,
    )
  })
}

test('what is left out gets its default', () => {
  const plan = compilePolicy(7, whole({}) as PolicyDocument).plans.get('p')
  assert.deepEqual(plan, {
    name: 'p',
    class: 'standard',
    features: new Set(['chat', 'sora.video']),
    subjects: [],
    guards: [],
    waterfall: [{ kind: 'credits', kinds: credits.credits }],
    grants: [],
    shortfall: undefined,
    hold: { ttlMs: 600_000, maxLifetimeMs: 86_400_000, onExpiry: 'release' },
    patienceMs: 3_600_000,
    lowBalanceMicros: [],
  })
})

test('a hold’s bounds follow each other where only one is written', () => {
  const hold = (written: object) =>
    compilePolicy(1, whole({ hold: written }) as PolicyDocument).plans.get('p')?.hold
  assert.equal(hold({ ttl: '48h' })?.maxLifetimeMs, 48 * 3_600_000)
  assert.equal(hold({ max_lifetime: '5m' })?.ttlMs, 300_000)
})

test('the plan of the design compiles to what the kernel reads', () => {
  const plan = compilePolicy(1, example('codex-and-sora')).plans.get('plus')
  assert.deepEqual(plan?.guards[0], {
    kind: 'rate',
    name: 'requests',
    by: 'user',
    features: undefined,
    meter: { kind: 'requests' },
    limit: 60,
    perMs: 60_000,
    algorithm: 'gcra',
    capacity: 20,
  })
  assert.deepEqual(plan?.guards[1]?.features, new Set(['sora.video']))
  assert.deepEqual(plan?.waterfall[0], {
    kind: 'allowance',
    name: 'tasks',
    source: 'allowance:tasks',
    by: 'user',
    features: new Set(['codex.task']),
    windows: [
      { name: '5h', key: 'tasks/5h', limit: 75_000_000, rule: { anchor: 'first_use', lengthMs: 18_000_000 } },
      {
        name: '7d',
        key: 'tasks/7d',
        limit: 400_000_000,
        rule: { anchor: 'first_use', lengthMs: 604_800_000 },
      },
    ],
  })
  assert.deepEqual(plan?.grants, [
    {
      name: 'plan',
      kind: 'plan',
      amount: 100_000_000,
      every: { anchor: 'calendar_or_account', unit: 'month', weekStart: 1 },
      rollover: 50_000_000,
      priority: 100,
      features: undefined,
    },
  ])
  assert.deepEqual(plan?.lowBalanceMicros, [20_000_000, 0])
})

test('units of a limit are those of its meter', () => {
  const limitOf = (meter: string, limit: unknown): unknown => {
    const [compiled] = compilePolicy(1, rate({ meter, limit }) as PolicyDocument).plans.get('p')?.guards ?? []
    return compiled?.limit
  }
  assert.equal(limitOf('requests', '60'), 60)
  assert.equal(limitOf('cost', '0.5'), 500_000)
  assert.equal(limitOf('tokens', 1.5), 1_500_000)
})

test('usage is told apart by what the policy names, else by what prices depend on', () => {
  const dimensionsOf = (document: unknown) => compilePolicy(1, document as PolicyDocument).usageDimensions
  const usage = (...dimensions: string[]) => whole({}, { usage: { dimensions } })
  assert.deepEqual(dimensionsOf(usage('subject.user', 'attributes.a.b', 'feature', 'subject.user')), [
    'attributes.a.b',
    'feature',
    'subject.user',
  ])
  assert.deepEqual(dimensionsOf(usage()), ['feature'])
  assert.deepEqual(dimensionsOf(whole({}, { usage: {} })), ['endpoint', 'feature'])
  assert.deepEqual(compilePolicy(1, example('codex-and-sora')).usageDimensions, [
    'attributes.mode',
    'attributes.model',
    'attributes.output',
    'attributes.resolution',
    'endpoint',
    'feature',
  ])
  const line = (n: number) => ({ when: { [`a${n}`]: 'x' }, per_request: 1 })
  const many = { work: { rate_card: Array.from({ length: 20 }, (_, n) => line(n)) } }
  assert.equal(dimensionsOf({ ...(whole({}) as object), features: many }).length, 9)
})

test('the compiled policy is frozen, but for its lists', () => {
  const policy = compilePolicy(1, example('minimal'))
  const plan = policy.plans.get('standard')
  for (const value of [policy, plan, plan?.waterfall[0], policy.features.get('chat')?.card.lines[0]])
    assert.ok(Object.isFrozen(value))
})

test('definePolicy answers a valid document and throws for another', () => {
  const document: PolicyDocument = {
    features: { chat: { rate_card: [{ per_million: { tokens: '2.5' } }] } },
    plans: {
      one: { waterfall: [{ credits: ['plan'] }], grants: [{ kind: 'plan', amount: '5', every: 'month' }] },
    },
  }
  assert.equal(definePolicy(document), document)
  assert.throws(() => definePolicy({ ...document, default_plan: 'two' }), { code: 'policy_invalid' })
  // @ts-expect-error: the types refuse an unknown field before the check does
  assert.throws(() => definePolicy({ ...document, plan: {} }), { code: 'policy_invalid' })
  // @ts-expect-error: and a duration without a unit
  assert.throws(() => definePolicy({ ...document, plans: { one: { waterfall: [], patience: '5' } } }), {
    code: 'policy_invalid',
  })
})

test('no JSON value and no text makes the check do anything but complain', () => {
  const keys = [
    'features',
    'plans',
    'p',
    'waterfall',
    'guards',
    'name',
    'rate',
    'credits',
    'when',
    'windows',
    'per',
    '__proto__',
    '/~',
  ]
  const leaf = fc.oneof(
    fc.constantFrom('free', '5h', 'month', '-1', 'constructor', '*', 1, 0.1, 1e300, -0, null, true),
    fc.string(),
  )
  const { tree } = fc.letrec<{ tree: unknown }>((tie) => ({
    tree: fc.oneof(
      { depthSize: 'small' },
      leaf,
      fc.array(tie('tree'), { maxLength: 3 }),
      fc.dictionary(fc.constantFrom(...keys), tie('tree'), { maxKeys: 6 }),
    ),
  }))
  fc.assert(
    fc.property(fc.oneof(tree, fc.json(), fc.anything()), (value) => {
      const checked = checkPolicy(value)
      try {
        compilePolicy(1, value as string)
        assert.deepEqual(checked.complaints, [])
      } catch (error) {
        assert.ok(error instanceof SluiceError && error.code === 'policy_invalid', String(error))
        assert.ok(checked.complaints.length > 0)
      }
    }),
    { numRuns: 500 },
  )
})
