import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { burnOrder, EVERY_FEATURE, featureMatches, type Grant, usable } from './grants.ts'

const grant = (id: string, terms: Partial<Grant> = {}): Grant => ({
  id,
  kind: 'purchased',
  amount: 10,
  remaining: 10,
  held: 0,
  priority: 100,
  startsAt: 0,
  expiresAt: null,
  ...terms,
})

const ORDERS: readonly (readonly [string, readonly Grant[]])[] = [
  ['the lower priority burns first', [grant('b', { priority: 1 }), grant('a', { priority: 2 })]],
  ['at one priority, the earlier expiry', [grant('b', { expiresAt: 5 }), grant('a', { expiresAt: 6 })]],
  ['a grant that never expires burns last', [grant('b', { expiresAt: 9e12 }), grant('a')]],
  [
    'at one expiry, the kind that the step names first',
    [grant('b', { kind: 'promo' }), grant('a', { kind: 'purchased' })],
  ],
  ['of one kind, the earlier start', [grant('b', { startsAt: 1 }), grant('a', { startsAt: 2 })]],
  ['of one start, the id', [grant('a'), grant('b')]],
  ['priority stands before expiry', [grant('b', { priority: 1 }), grant('a', { expiresAt: 1 })]],
  ['expiry stands before kind', [grant('b', { expiresAt: 1 }), grant('a', { kind: 'promo', expiresAt: 2 })]],
]
for (const [sentence, grants] of ORDERS) {
  test(sentence, () => {
    const ids = (order: readonly Grant[]): string[] => order.map(({ id }) => id)
    assert.deepEqual(ids(burnOrder(grants, ['promo', 'purchased'])), ids(grants))
    assert.deepEqual(ids(burnOrder(grants.toReversed(), ['promo', 'purchased'])), ids(grants))
  })
}

test('kinds that the step does not name do not burn in it', () => {
  assert.deepEqual(
    burnOrder([grant('a', { kind: 'free' }), grant('b')], ['purchased']).map(({ id }) => id),
    ['b'],
  )
})

test('the burn order is the same however the grants are stored, and leaves them as they were', () => {
  const any = fc.record({
    priority: fc.nat({ max: 2 }),
    expiresAt: fc.option(fc.nat({ max: 2 })),
    startsAt: fc.nat({ max: 2 }),
  })
  fc.assert(
    fc.property(fc.array(any, { maxLength: 12 }), (terms) => {
      const grants = terms.map((one, place) => grant(`g${place}`, one))
      const before = structuredClone(grants)
      assert.deepEqual(burnOrder(grants, ['purchased']), burnOrder(grants.toReversed(), ['purchased']))
      assert.deepEqual(grants, before)
    }),
  )
})

const USABLE: readonly (readonly [string, Partial<Grant>, boolean])[] = [
  ['at its start', { startsAt: 100 }, true],
  ['one millisecond before its start', { startsAt: 101 }, false],
  ['one millisecond before its end', { expiresAt: 101 }, true],
  ['at its end', { expiresAt: 100 }, false],
  ['when it has been revoked', { ended: 'revoked' }, false],
  ['for its feature', { features: ['codex.task'] }, true],
  ['for a pattern of its feature', { features: ['sora.*', 'codex.*'] }, true],
  ['for another feature', { features: ['sora.*'] }, false],
  ['for its subject', { subjects: { user: ['u0', 'u1'] } }, true],
  ['for another subject', { subjects: { user: ['u2'] } }, false],
  ['for a subject without the dimension', { subjects: { team: ['t1'] } }, false],
]
for (const [when, terms, can] of USABLE) {
  test(`a grant ${can ? 'pays' : 'does not pay'} ${when}`, () => {
    assert.equal(usable(grant('a', terms), 100, 'codex.task', { user: 'u1' }), can)
  })
}

test('scope does not hide a grant where all features are looked at', () => {
  assert.ok(usable(grant('a', { features: ['x'], subjects: { user: ['u'] } }), 0, EVERY_FEATURE, {}))
})

test('a pattern matches what begins with it, a name only itself', () => {
  assert.ok(featureMatches('*', 'anything'))
  assert.ok(featureMatches('codex.*', 'codex.task'))
  assert.ok(!featureMatches('codex.*', 'codexer'))
  assert.ok(!featureMatches('codex', 'codex.task'))
})
