import assert from 'node:assert/strict'
import { test } from 'node:test'
import { type Item, parseList, writeList } from '../../test/structured-fields.ts'
import { decisionHeaders, retryAfter } from '../decision-headers.ts'
import type { DecisionAnswer, Limit } from '../wire.ts'

const answerOf = (limits: readonly Limit[], more: Partial<DecisionAnswer> = {}): DecisionAnswer => ({
  ...{
    request_id: 'r',
    outcome: 'allow',
    reason: 'granted',
    cost: '1',
    granted: '1',
    from: [],
    expires_at: null,
  },
  ...{ policy_version: 1, decided_at: 1_000_000, state: 'open', replayed: false },
  limits,
  ...more,
})
const limitOf = (more: Partial<Limit>): Limit => ({
  ...{ kind: 'rate', name: 'requests', unit: 'requests', limit: '60', used: '1', held: '0', remaining: '59' },
  ...more,
})

/** Read as a strict client would: names, and parameters as an object. */
function read(field: string | undefined): readonly unknown[] {
  const list = parseList(field ?? '')
  assert.equal(writeList(list), field, 'what is sent is canonical')
  return list.map((member) => {
    const [name, parameters] = member as Item
    return [
      name,
      Object.fromEntries(
        parameters.map(([key, value]) => [
          key,
          value instanceof Uint8Array ? String(Buffer.from(value)) : value,
        ]),
      ),
    ]
  })
}

const LIMITS: readonly [what: string, limit: Partial<Limit>, policy: object, state: object][] = [
  ['requests are the default unit', {}, { q: 60 }, { r: 59 }],
  ['a reset is told in seconds, rounded up', { resets_at: 1_000_001 }, { q: 60 }, { r: 59, t: 1 }],
  ['a reset that has passed is now', { resets_at: 1 }, { q: 60 }, { r: 59, t: 0 }],
  [
    'CU are exact, in µCU',
    { unit: 'cu', limit: '0.5', remaining: '0.000001' },
    { q: 500_000, qu: 'micro-cu' },
    { r: 1 },
  ],
  [
    'other units are rounded down',
    { unit: 'seconds', limit: '8.5', remaining: '0.9' },
    { q: 8, qu: 'seconds' },
    { r: 0 },
  ],
  [
    'holds are concurrent requests',
    { unit: 'holds', limit: '3', remaining: '2' },
    { q: 3, qu: 'concurrent-requests' },
    { r: 2 },
  ],
  [
    'a subject is the partition',
    { by: 'user', subject: 'ü"1' },
    { q: 60, pk: 'user=ü"1' },
    { r: 59, pk: 'user=ü"1' },
  ],
  [
    'the largest amount has 15 digits at most',
    { unit: 'cu', limit: '9007199254.740991', remaining: '1' },
    { q: 999_999_999_999_999, qu: 'micro-cu' },
    { r: 1_000_000 },
  ],
]
for (const [what, limit, policy, state] of LIMITS) {
  test(what, () => {
    const { name, ...rest } = limitOf(limit)
    const headers = decisionHeaders(answerOf([{ name, ...rest }]))
    assert.deepEqual(read(headers['ratelimit-policy']), [[name, policy]])
    assert.deepEqual(read(headers.ratelimit), [[name, state]])
  })
}

test('limits keep their order; quotes and backslashes in names are escaped', () => {
  const headers = decisionHeaders(
    answerOf([limitOf({ name: 'a "b" \\c' }), limitOf({ name: 'included/5h' })]),
  )
  assert.deepEqual(
    read(headers.ratelimit).map((member) => (member as unknown[])[0]),
    ['a "b" \\c', 'included/5h'],
  )
})

test('a name or unit outside ASCII is left to the body', () => {
  const headers = decisionHeaders(
    answerOf([limitOf({ name: 'täglich' }), limitOf({ unit: 'sekündlich' }), limitOf({})]),
  )
  assert.equal(read(headers['ratelimit-policy']).length, 1)
})

test('no limits, no fields', () => assert.deepEqual(decisionHeaders(answerOf([])), {}))

test('Retry-After stands with a wait alone, in seconds rounded up', () => {
  const waits = { outcome: 'wait', retry_after_ms: 1_001 } as const
  assert.equal(decisionHeaders(answerOf([], waits))['retry-after'], '2')
  assert.equal(decisionHeaders(answerOf([], { ...waits, outcome: 'deny' }))['retry-after'], undefined)
  assert.deepEqual([0, 1, 1000, 1001].map(retryAfter), ['0', '1', '1', '2'])
})
