import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { WindowRule } from '../kernel/plan.ts'
import {
  boundedDuration,
  formatDuration,
  parseDuration,
  type WindowDefaults,
  weekday,
  windowRule,
} from './durations.ts'

const HOUR = 3_600_000
const DAY = 24 * HOUR

const LENGTHS: readonly (readonly [text: string, ms: number | undefined, again?: string])[] = [
  ['0s', 0],
  ['1s', 1000],
  ['30s', 30_000],
  ['90s', 90_000],
  ['60s', 60_000, '1m'],
  ['5m', 300_000],
  ['5h', 5 * HOUR],
  ['24h', DAY, '1d'],
  ['7d', 7 * DAY],
  ['2w', 14 * DAY, '14d'],
  ['', undefined],
  ['5', undefined],
  ['1.5h', undefined],
  ['-1h', undefined],
  ['05m', undefined],
  ['5 m', undefined],
  ['1M', undefined],
  ['1y', undefined],
  ['1h30m', undefined],
  ['1000000000s', undefined],
]

for (const [text, ms, again] of LENGTHS) {
  test(`${JSON.stringify(text)} is ${ms === undefined ? 'no length' : `${ms} ms`}`, () => {
    assert.equal(parseDuration(text), ms)
    if (ms !== undefined) assert.equal(formatDuration(ms), again ?? text)
  })
}

test('a length out of bounds is complained about with its bound', () => {
  const told: string[] = []
  assert.equal(
    boundedDuration('401d', '/per', (path, message) => void told.push(`${path} ${message}`)),
    400 * DAY,
  )
  assert.deepEqual(told, ['/per must be at most 400d, not 401d'])
})

const FIXED: WindowRule = { anchor: 'account', period: { lengthMs: 7 * DAY } }
const MONTH = { unit: 'month', weekStart: 1 } as const

/** `per`, `anchor`, `week_start` as written, and what an allowance, a budget and a recurrence make of it; a string is a complaint. */
const RULES: readonly (readonly [
  per: string,
  anchor: string | undefined,
  week: string | undefined,
  allowance: WindowRule | string,
  budget: WindowRule | string,
  recurrence: WindowRule | string,
])[] = [
  ['7d', undefined, undefined, { anchor: 'first_use', lengthMs: 7 * DAY }, FIXED, FIXED],
  ['7d', 'account', undefined, FIXED, FIXED, FIXED],
  [
    '7d',
    'first_use',
    undefined,
    { anchor: 'first_use', lengthMs: 7 * DAY },
    { anchor: 'first_use', lengthMs: 7 * DAY },
    '/anchor',
  ],
  ['7d', 'calendar', undefined, '/per', '/per', '/per'],
  [
    'month',
    undefined,
    undefined,
    { anchor: 'calendar', ...MONTH },
    { anchor: 'calendar_or_account', ...MONTH },
    { anchor: 'calendar_or_account', ...MONTH },
  ],
  [
    'month',
    'calendar',
    undefined,
    { anchor: 'calendar', ...MONTH },
    { anchor: 'calendar', ...MONTH },
    { anchor: 'calendar', ...MONTH },
  ],
  [
    'month',
    'account',
    undefined,
    { anchor: 'account', period: { unit: 'month' } },
    { anchor: 'account', period: { unit: 'month' } },
    { anchor: 'account', period: { unit: 'month' } },
  ],
  ['month', 'first_use', undefined, '/per', '/per', '/per'],
  [
    'week',
    undefined,
    'sunday',
    { anchor: 'calendar', unit: 'week', weekStart: 7 },
    { anchor: 'calendar_or_account', unit: 'week', weekStart: 7 },
    { anchor: 'calendar_or_account', unit: 'week', weekStart: 7 },
  ],
  ['week', 'account', 'sunday', '/week_start', '/week_start', '/week_start'],
  ['day', undefined, 'sunday', '/week_start', '/week_start', '/week_start'],
]

for (const [per, anchor, weekStart, ...expected] of RULES) {
  for (const [index, kind] of (['allowance', 'account', 'recurrence'] as const).entries()) {
    test(`per ${per}, anchor ${anchor ?? 'left out'}, week from ${weekStart ?? 'the default'}, in an ${kind}`, () => {
      const told: string[] = []
      const defaults: WindowDefaults = { kind, weekStart: 1 }
      const rule = windowRule({ per, anchor, weekStart }, defaults, '', (path) => void told.push(path))
      const wanted = expected[index]
      if (typeof wanted === 'string') assert.deepEqual(told, [wanted])
      else assert.deepEqual([rule, told], [wanted, []])
    })
  }
}

test('a policy’s own first day of the week holds where a window says nothing', () => {
  const rule = windowRule({ per: 'week' }, { kind: 'allowance', weekStart: weekday('saturday') }, '', () =>
    assert.fail(),
  )
  assert.deepEqual(rule, { anchor: 'calendar', unit: 'week', weekStart: 6 })
})
