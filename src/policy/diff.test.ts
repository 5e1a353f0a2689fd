import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { test } from 'node:test'
import { compilePolicy } from './compile.ts'
import { diffPolicies } from './diff.ts'

const text = readFileSync(new URL('../../examples/codex-and-sora.yaml', import.meta.url), 'utf8')
const before = compilePolicy(1, text)

/** What is replaced in the example, by what, and the lines that tell it. */
const CHANGES: readonly (readonly [
  what: string,
  from: string | RegExp,
  to: string,
  lines: readonly (string | RegExp)[],
])[] = [
  ['nothing', 'features', 'features', ['Nothing changes.']],
  [
    'a limit',
    'limit: 60, per: 1m',
    'limit: 90, per: 1m',
    [/^plans\/plus\/guards\/requests\/limit: 60 requests → 90 requests \(holds at once: what is used stays/],
  ],
  ['a burst', ', burst: 20', '', [/guards\/requests\/burst: removed: 20 requests/]],
  [
    'an algorithm',
    'algorithm: gcra, burst: 20',
    'algorithm: fixed',
    [/algorithm: gcra → fixed/, /burst: removed/],
  ],
  [
    'a meter',
    'meter: output_tokens',
    'meter: input_tokens',
    [/meter: output_tokens → input_tokens/, /limit: 2000000 output_tokens → 2000000 input_tokens/],
  ],
  [
    'a window',
    'limit: "75", per: 5h',
    'limit: "80", per: 6h',
    [
      /tasks\/5h\/limit: 75 CU → 80 CU/,
      /tasks\/5h\/per: 5h from first use → 6h from first use \(begins when the present window ends\)/,
    ],
  ],
  [
    'a window’s name',
    'name: week, limit: "60"',
    'name: seven, limit: "60"',
    [
      /reviews\/week: removed: 60 CU per 7d from first use \(its state goes when its last hold has\)/,
      /reviews\/seven: added/,
    ],
  ],
  [
    'an allowance’s dimension',
    'by: user\n        features: [codex.review]',
    'features: [codex.review]',
    [/reviews\/by: user → the account \(counts anew/],
  ],
  [
    'a price',
    'seconds: 7.5',
    'seconds: 8',
    [
      /^features\/sora.video\/rate_card\/model sora-2-pro\/seconds: 7.5 CU per unit → 8 CU per unit \(requests that are open keep the price/,
    ],
  ],
  [
    'a factor',
    'multiply: 2.5',
    'multiply: 2',
    [
      /mode fast, model gpt-5.5\/input_tokens: 312.5 CU per million → 250 CU per million/,
      /cached_input_tokens/,
      /output_tokens/,
    ],
  ],
  [
    'a line of a rate card',
    / +- when: { model: gpt-5.2 }\n.*\n/,
    '',
    [/model gpt-5.2: removed: input_tokens 43.75 CU per million, cached_input_tokens 4.375 CU per million/],
  ],
  [
    'the order of a rate card',
    /( +- when: { model: gpt-5.4-mini }\n.*\n)( +- when: { model: gpt-5.3-codex }\n.*\n)/,
    '$2$1',
    [/codex.task\/rate_card\/order: /],
  ],
  [
    'an estimate',
    '{ seconds: 8 }',
    '{ seconds: 10 }',
    [/default_estimate: 8 seconds → 10 seconds \(from the next decision\)/],
  ],
  [
    'a plan',
    'default_plan: free',
    'default_plan: plus',
    ['default_plan: free → plus (from the next decision)'],
  ],
  [
    'what usage is told apart by',
    'default_plan: free',
    'default_plan: free\nusage: { dimensions: [subject.user] }',
    [
      /^usage\/dimensions: attributes.mode, .+, endpoint, feature → feature, subject.user \(for usage summed from now on/,
    ],
  ],
  [
    'a plan’s name',
    '  pro:',
    '  max:',
    [
      /^plans\/pro: removed: plan pro \(accounts that are still on it get the error plan_unknown/,
      /^plans\/max: added: plan max/,
    ],
  ],
  [
    'a guard’s name',
    'name: team-in-flight',
    'name: team-running',
    [
      /team-in-flight: removed: at most 200 at once by team/,
      /team-running: added: .*counts from the first decision/,
    ],
  ],
  [
    'a guard’s kind',
    'name: team-budget, budget: "50000", per: month',
    'name: team-budget, concurrency: 5',
    [
      /team-budget: budget of 50000 CU per calendar month, or from the account’s anchor by team → at most 5 at once by team/,
    ],
  ],
  [
    'a budget’s anchor',
    'budget: "5000", per: month',
    'budget: "5000", per: month, anchor: account',
    [/monthly-budget\/per: calendar month, or .* → month from the account’s anchor/],
  ],
  [
    'the order of guards',
    /( +- { name: monthly-budget.*\n)( +- { name: team-budget.*\n)/,
    '$2$1',
    [/guards\/order/],
  ],
  [
    'a grant',
    'kind: plan, amount: "100"',
    'kind: plan, amount: "120"',
    [/plus\/grants\/plan\/amount: 100 CU → 120 CU \(from the next period\)/],
  ],
  [
    'a grant’s name',
    'name: welcome',
    'name: hello',
    [/welcome: removed: 25 CU of free, once \(stops recurring/, /hello: added/],
  ],
  [
    'overage',
    '- overage: { limit: "250", per: month }',
    '',
    [/pro\/waterfall: /, /pro\/waterfall\/overage: removed: 250 CU/],
  ],
  [
    'a bound of overage',
    'overage: { limit: "250"',
    'overage: { limit: "300"',
    [/overage\/limit: 250 CU → 300 CU/],
  ],
  ['what is absorbed', 'absorb: "5"', 'absorb: "6"', [/on_shortfall\/absorb: 5 CU per .* → 6 CU per/]],
  [
    'a hold',
    'ttl: 30m, max_lifetime: 48h, on_expiry: charge',
    'ttl: 20m',
    [/hold\/ttl: 30m → 20m/, /max_lifetime: 2d → 1d/, /on_expiry: charge → release/],
  ],
  ['patience', 'patience: 10m', 'patience: 0s', [/patience: 10m → 0s/]],
  ['thresholds', 'low_balance: ["20", "0"]', '', [/plus\/low_balance: removed: 20 CU, 0 CU/]],
  ['a class', 'class: sheddable', 'class: standard', [/free\/class: sheddable → standard/]],
  [
    'features of a plan',
    'features: [codex.task]\n    guards',
    'features: [codex.*]\n    guards',
    [/free\/features: codex.task → codex.review, codex.task/],
  ],
  [
    'subjects',
    'team: { max: 100 }',
    'team: { max: 50 }',
    [/subjects: 100 team, 2000 user → 2000 user, 50 team/],
  ],
]

for (const [what, from, to, expected] of CHANGES) {
  test(`a change of ${what} is told`, () => {
    const after = compilePolicy(2, text.replace(from, to))
    const { lines, changes } = diffPolicies(before, after)
    assert.equal(lines.length, expected.length, lines.join('\n'))
    for (const [index, line] of expected.entries()) {
      if (typeof line === 'string') assert.equal(lines[index], line)
      else assert.match(lines[index] ?? '', line)
    }
    for (const change of changes) assert.ok(change.text.includes(change.effect))
  })
}

test('a change says whom it concerns, and what it was before and after', () => {
  const after = compilePolicy(2, text.replace('limit: 60, per: 1m', 'limit: 90, per: 1m'))
  const [change] = diffPolicies(before, after).changes
  assert.deepEqual(
    { ...change, text: '', effect: '' },
    {
      kind: 'changed',
      path: '/plans/plus/guards/requests/limit',
      whom: 'plan plus',
      before: '60 requests',
      after: '90 requests',
      text: '',
      effect: '',
    },
  )
})

test('a new feature and a removed one are told with what becomes of their requests', () => {
  const one = compilePolicy(1, 'features: { a: {} }\nplans: { p: { waterfall: [{ credits: [free] }] } }')
  const two = compilePolicy(2, 'features: { b: {} }\nplans: { p: { waterfall: [{ credits: [free] }] } }')
  assert.deepEqual(diffPolicies(one, two).lines, [
    'features/a: removed: feature a (refused from the next decision; open requests settle at the price they were reserved under)',
    'features/b: added: feature b (from the next decision, where a plan allows it)',
    'plans/p/features: a → b (from the next decision)',
  ])
})
