import assert from 'node:assert/strict'
import { test } from 'node:test'
import fc from 'fast-check'
import { SluiceError } from '../src/errors.ts'
import { accountOf, auditOf, DAY, HOUR, history, MINUTE } from './histories.ts'

const POLICY = `
features:
  job: {}
  task:
    rate_card:
      - { when: { size: large }, per_unit: { units: 2, tokens: 0.2 } }
      - { per_unit: { units: 1, tokens: 0.1 } }
plans:
  plus:
    guards:
      - { name: requests, rate: { meter: requests, limit: 1000, per: 1m }, by: user }
      - { name: in-flight, concurrency: 20, by: user }
      - { name: team-budget, budget: "500", per: month, by: team }
    waterfall:
      - allowance: included
        by: user
        windows:
          - { name: 5h, limit: "10", per: 5h }
          - { name: 7d, limit: "40", per: 7d }
      - credits: [plan, promo]
      - credits: [free, enterprise, purchased, adjustment]
      - overage: { limit: "20", per: month }
    on_shortfall: { absorb: "5", per: month }
    grants:
      - { kind: plan, amount: "30", every: month, rollover: "10" }
    low_balance: ["20", "0"]
  charging:
    waterfall: [{ credits: [free, promo, plan, enterprise, purchased, adjustment] }]
    hold: { ttl: 10m, on_expiry: charge }
  small:
    waterfall: [{ credits: [free, promo, plan, enterprise, purchased, adjustment] }]
  daily:
    waterfall: [{ credits: [plan] }]
    grants: [{ kind: plan, amount: "3", every: day }]
default_plan: small
`
type Played = Awaited<ReturnType<typeof history>>

const HISTORIES: Readonly<Record<string, (on: Played) => Promise<void>>> = {
  'an account that was made and left alone': async (on) => {
    await on.create('plus')
  },
  'a request settled under, at and over its hold': async (on) => {
    await on.create('plus')
    for (const [id, cost] of [
      ['under', '3'],
      ['at', '5'],
      ['over', '9'],
    ] as const) {
      await on.reserve(id, '5')
      await on.settle(id, cost)
    }
  },
  'a request over every source, into the absorbed and debt, then repaid': async (on) => {
    await on.create('plus')
    await on.grant('bought', '7')
    await on.reserve('r1', '50')
    await on.settle('r1', '90')
    await on.grant('more', '100')
    await on.reserve('r2', '10')
    await on.settle('r2', '10')
  },
  'a debt that was repaid, and refunded after': async (on) => {
    await on.create('small')
    await on.record('r1', '8')
    await on.grant('bought', '20')
    await on.refund('r1', 'f1', '3')
    await on.refund('r1', 'f2')
  },
  'usage that was counted and not told': async (on) => {
    await on.create('small')
    await on.grant('bought', '20')
    await on.reserve('r1', '8')
    await on.engine.settle({ account: 'acme', request_id: 'r1', cost: '3', estimated: true })
    await on.engine.record({
      ...{ account: 'acme', request_id: 'r2', feature: 'task', usage: { units: 2 }, estimated: true },
    })
  },
  'holds that are open': async (on) => {
    await on.create('plus')
    await on.grant('bought', '100')
    await on.reserve('r1', '25')
    await on.reserve('r2', '30', { subject: { user: 'u2', team: 't1' } })
    await on.extend('r1', 1, { cost: '60' })
    await on.extend('r1', 2, {})
  },
  'a hold that lives through several windows': async (on) => {
    await on.create('plus')
    await on.reserve('r1', '4', { ttl_ms: 23 * HOUR })
    on.wait(6 * HOUR)
    await on.extend('r1', 1, { cost: '9' })
    on.wait(6 * HOUR)
    await on.reserve('r2', '2')
    await on.extend('r1', 2, { cost: '20' })
    await on.settle('r1', '16')
  },
  'a partial grant': async (on) => {
    await on.create('small')
    await on.grant('bought', '7')
    await on.task('r1', '10', { min_cost: '1' })
    await on.used('r1', '6')
  },
  'uses priced by the card, with other attributes in the end': async (on) => {
    await on.create('plus')
    await on.task('r1', '3')
    await on.used('r1', '2', { attributes: { size: 'large' } })
    await on.engine.record({
      account: 'acme',
      request_id: 'r2',
      subject: { user: 'u1', team: 't2' },
      feature: 'task',
      usage: { units: '1.5', pages: '2' },
    })
  },
  'a refund of everything, and of a part': async (on) => {
    await on.create('plus')
    await on.grant('bought', '100')
    for (const id of ['r1', 'r2']) {
      await on.reserve(id, '60')
      await on.settle(id, '70')
    }
    await on.refund('r1', 'f1')
    await on.refund('r2', 'f1', '12.5')
    await on.refund('r2', 'f2', '0')
    await on.refund('r2', 'f3')
  },
  'a refund to a grant that had been used up, one that had expired, and one that was revoked': async (on) => {
    await on.create('small')
    await on.grant('used', '5')
    await on.grant('short', '5', { expires_at: on.clock.now + HOUR })
    await on.grant('taken', '5')
    await on.record('r1', '13')
    await on.engine.revokeGrant('acme', 'taken', { reason: 'wrong customer' })
    on.wait(2 * HOUR)
    await on.refund('r1', 'f1')
  },
  'a hold that ran out and was given back': async (on) => {
    await on.create('plus')
    await on.grant('bought', '50')
    await on.reserve('r1', '45')
    on.wait(HOUR)
    await on.reserve('r2', '1')
    await on.used('r1', '2', {}).catch(() => on.settle('r1', '2'))
  },
  'a hold that ran out and was charged, then settled for more, for less, and refunded': async (on) => {
    await on.create('charging')
    await on.grant('bought', '100')
    for (const id of ['more', 'less', 'same', 'refunded']) await on.task(id, '10')
    await on.extend('less', 1, { used: { units: '4' } })
    on.wait(HOUR)
    await on.touch()
    await on.used('more', '25')
    await on.used('less', '1')
    await on.used('same', '10')
    await on.refund('refunded', 'f1', '7')
    await on.used('refunded', '2')
    await on.refund('more', 'f1', '5')
  },
  'a grant that expired while something was held from it': async (on) => {
    await on.create('small')
    await on.grant('short', '20', { expires_at: on.clock.now + 5 * MINUTE })
    await on.reserve('r1', '8')
    await on.reserve('r2', '4')
    on.wait(6 * MINUTE)
    await on.touch()
    await on.settle('r1', '3')
    await on.release('r2')
  },
  'a grant that was revoked while something was held from it': async (on) => {
    await on.create('small')
    await on.grant('taken', '20')
    await on.reserve('r1', '8')
    await on.engine.revokeGrant('acme', 'taken', { reason: 'chargeback' })
    await on.settle('r1', '5')
  },
  'grants that start later, have a scope, and repay debt when they start': async (on) => {
    await on.create('small')
    await on.record('r0', '3')
    await on.grant('later', '10', { starts_at: on.clock.now + HOUR })
    await on.grant('scoped', '10', { features: ['task'], subjects: { user: ['u1'] } })
    on.wait(2 * HOUR)
    await on.touch()
    await on.task('r1', '4')
    await on.used('r1', '4')
  },
  'plan grants that roll over for months': async (on) => {
    await on.create('plus')
    for (let month = 0; month < 4; month++) {
      on.wait(31 * DAY)
      await on.reserve(`r${month}`, '15')
      await on.settle(`r${month}`, String(12 + 7 * month))
    }
  },
  'a long sleep that is booked as one summary': async (on) => {
    await on.create('daily')
    on.wait(200 * DAY)
    await on.touch()
    await on.reserve('r1', '2')
    await on.settle('r1', '2')
  },
  'a change of plan and back, with windows in use': async (on) => {
    await on.create('plus')
    await on.reserve('r1', '6')
    await on.reserve('r2', '3')
    await on.settle('r1', '5')
    await on.engine.patchAccount('acme', { plan: 'small' })
    await on.record('r3', '1')
    await on.settle('r2', '2')
    await on.record('r4', '1')
    await on.engine.patchAccount('acme', { plan: 'plus' })
    await on.reserve('r5', '6')
    await on.settle('r5', '6')
  },
  'a new policy that drops a window, and one that brings it back': async (on) => {
    await on.create('plus')
    await on.record('r1', '6')
    await on.engine.publishPolicy(
      POLICY.replaceAll('per: month, by: team', 'per: day, by: team').replace('name: 5h', 'name: hours'),
      undefined,
    )
    await on.record('r2', '3')
    await on.engine.publishPolicy(POLICY, undefined)
    await on.reserve('r3', '3')
    await on.settle('r3', '3')
    on.wait(2 * DAY)
    await on.record('r4', '3')
  },
  'a change of price while a request is open': async (on) => {
    await on.create('plus')
    await on.task('r1', '3')
    await on.engine.publishPolicy(POLICY.replaceAll('units: 1,', 'units: 3,'), undefined)
    await on.used('r1', '4')
    await on.task('r2', '1')
    await on.used('r2', '1')
  },
  'overrides, and terms that changed': async (on) => {
    await on.create('plus')
    await on.engine.overrideLimits('acme', {
      reason: 'a friend',
      overrides: [
        { name: 'included/5h', limit: '20' },
        { name: 'overage', limit: '1', until_at: on.clock.now + DAY },
      ],
    })
    await on.engine.overrideLimits('acme', {
      reason: 'a test',
      subject: { user: 'u1' },
      overrides: [{ name: 'included/7d', limit: '15' }],
    })
    await on.reserve('r1', '14')
    await on.settle('r1', '14')
    on.wait(2 * DAY)
    await on.engine.overrideLimits('acme', {
      reason: 'over',
      overrides: [{ name: 'included/5h', limit: null }],
    })
    await on.engine.patchAccount('acme', {
      status: 'suspended',
      time_zone: 'Europe/Berlin',
      metadata: { crm: '7' },
    })
    await on.record('r2', '1')
  },
  'a plan and a policy that went and came back in one month, and a refund across them': async (on) => {
    await on.create('plus')
    await on.record('r1', '5')
    await on.engine.patchAccount('acme', { plan: 'small' })
    on.wait(1)
    await on.engine.patchAccount('acme', { plan: 'plus' })
    await on.record('r2', '4')
    await on.refund('r1', 'f1')
    await on.engine.publishPolicy(
      POLICY.replace('budget: "500", per: month', 'budget: "500", per: day'),
      undefined,
    )
    on.wait(DAY * 30)
    await on.record('r3', '2')
    on.wait(DAY)
    await on.touch()
    await on.engine.publishPolicy(POLICY, undefined)
    await on.record('r4', '3')
    await on.refund('r3', 'f1')
  },
  'two debts that were repaid, each refunded under the same refund id': async (on) => {
    await on.create('small')
    await on.record('r1', '8')
    await on.record('r2', '5')
    await on.grant('bought', '100')
    await on.refund('r1', 'f1')
    await on.refund('r2', 'f1')
  },
  'an account that its first request made': async (on) => {
    await on.record('r1', '2')
    await on.grant('bought', '10')
    await on.reserve('r2', '3')
  },
  'a release before its reserve, and a use after it': async (on) => {
    await on.create('plus')
    await on.release('r1')
    await assert.rejects(on.reserve('r1', '3'), /released/)
    await on.release('r2')
    await on.record('r2', '2')
    await on.reserve('r3', '3')
    await on.release('r3')
    await on.settle('r3', '1')
  },
  'a person who was erased, others who share a team, and the person again': async (on) => {
    await on.create('plus')
    await on.grant('bought', '200')
    for (const user of ['u1', 'u2']) {
      await on.task(`t-${user}`, '15', { subject: { user, team: 't1' } })
      await on.used(`t-${user}`, '12')
      await on.reserve(`r-${user}`, '15', { subject: { user, team: 't1' } })
      await on.settle(`r-${user}`, '20')
    }
    await on.engine.erase('acme', 'user', 'u1')
    await on.refund('r-u1', 'f1', '4')
    await on.reserve('again', '3')
    await on.settle('again', '2')
    await on.reserve('u2', '3', { subject: { user: 'u2', team: 't1' } })
  },
}

for (const [what, play] of Object.entries(HISTORIES)) {
  test(`${what}: nothing disagrees`, async () => {
    const on = await history(POLICY)
    await play(on)
    assert.deepEqual(auditOf(await on.keep()), [])
  })
}

/** The history, with a checkpoint written before its call of that number; false where it has fewer calls. */
async function interrupted(play: (on: Played) => Promise<void>, at: number): Promise<Played | undefined> {
  const on = await history(POLICY)
  let calls = 0
  const counting = <O extends object>(target: O): O =>
    new Proxy(target, {
      get(of, name) {
        const found = Reflect.get(of, name) as unknown
        if (name === 'engine') return counting(found as object)
        if (typeof found !== 'function' || name === 'wait') return found
        return async (...args: unknown[]) => {
          if (calls === at) await on.checkpoint()
          else if (calls > at && calls % 3 === 0) await on.checkpoint(true)
          calls += 1
          return found.apply(of, args)
        }
      },
    })
  await play(counting(on))
  return calls > at ? on : undefined
}

for (const [what, play] of Object.entries(HISTORIES)) {
  test(`${what}: nothing disagrees from a checkpoint at any point of it either`, async () => {
    // Before its first call there is no account yet.
    for (let at = 1; ; at++) {
      const on = await interrupted(play, at)
      if (on === undefined) break
      const kept = await on.keep()
      assert.deepEqual(auditOf(kept), [])
      // Where someone was erased after it, the checkpoint has gone.
      if (accountOf(kept).checkpoint !== undefined) assert.deepEqual(auditOf(kept, { resume: true }), [])
      else assert.match(what, /erased/)
    }
  })
}

const PLANS = ['plus', 'charging', 'small', 'daily'] as const
const POLICIES = [
  POLICY,
  POLICY.replaceAll('per: month, by: team', 'per: day, by: team').replace('name: 5h', 'name: hours'),
  POLICY.replaceAll('units: 1,', 'units: 3,').replace('- overage: { limit: "20", per: month }', ''),
]
const who = fc.record({ user: fc.constantFrom('u1', 'u2', 'u3'), team: fc.constantFrom('t1', 't2') })
const id = fc.nat({ max: 11 }).map((n) => `r${n}`)
const amount = fc.nat({ max: 24 }).map(String)
const deeds: Readonly<Record<string, fc.Arbitrary<(on: Played, count: number) => Promise<unknown>>>> = {
  reserve: fc.tuple(id, amount, who, fc.boolean(), fc.nat({ max: 300 })).map(
    ([r, cost, subject, least, ttl]) =>
      (on) =>
        on.reserve(r, cost, { subject, ttl_ms: (ttl + 1) * MINUTE, ...(least ? { min_cost: '0.5' } : {}) }),
  ),
  task: fc.tuple(id, amount, who).map(
    ([r, units, subject]) =>
      (on) =>
        on.task(r, units, { subject }),
  ),
  extend: fc.tuple(id, fc.integer({ min: 1, max: 3 }), amount, amount).map(
    ([r, step, cost, units]) =>
      (on) =>
        on.extend(r, step, { cost, ...(units === '3' ? {} : { used: { units } }) }),
  ),
  settle: fc.tuple(id, amount).map(
    ([r, cost]) =>
      (on) =>
        on.settle(r, cost),
  ),
  used: fc.tuple(id, amount, fc.boolean()).map(
    ([r, units, large]) =>
      (on) =>
        on.used(r, units, large ? { attributes: { size: 'large' } } : {}),
  ),
  release: id.map((r) => (on) => on.release(r)),
  record: fc.tuple(id, amount, who).map(
    ([r, cost, subject]) =>
      (on) =>
        on.record(r, cost, { subject }),
  ),
  refund: fc.tuple(id, fc.nat({ max: 3 }), fc.option(amount, { nil: undefined })).map(
    ([r, f, back]) =>
      (on) =>
        on.refund(r, `f${f}`, back),
  ),
  grant: fc
    .tuple(amount, fc.nat({ max: 48 }), fc.nat({ max: 3 }), fc.constantFrom('promo', 'purchased', 'free'))
    .map(
      ([units, hours, later, kind]) =>
        (on, count) =>
          on.grant(`g${count}`, units, {
            kind,
            ...(hours === 0 ? {} : { expires_at: on.clock.now + (hours + 4) * HOUR }),
            ...(later < 2 ? {} : { starts_at: on.clock.now + later * HOUR }),
            ...(later === 1 ? { features: ['task'], subjects: { user: ['u1', 'u2'] } } : {}),
          }),
    ),
  revoke: fc.nat({ max: 60 }).map((n) => (on) => on.engine.revokeGrant('acme', `g${n}`, {})),
  wait: fc
    .oneof({ weight: 6, arbitrary: fc.nat({ max: 120 }) }, fc.nat({ max: 20_000 }), fc.nat({ max: 90_000 }))
    .map((minutes) => async (on) => on.wait(minutes * MINUTE)),
  plan: fc.constantFrom(...PLANS).map((plan) => (on) => on.engine.patchAccount('acme', { plan })),
  policy: fc.constantFrom(...POLICIES).map((text) => (on) => on.engine.publishPolicy(text, undefined)),
  override: fc
    .tuple(fc.constantFrom('included/5h', 'team-budget', 'in-flight'), fc.option(amount), fc.boolean())
    .map(
      ([name, limit, ends]) =>
        (on) =>
          on.engine.overrideLimits('acme', {
            reason: 'a test',
            overrides: [{ name, limit, ...(ends && limit !== null ? { until_at: on.clock.now + DAY } : {}) }],
          }),
    ),
  checkpoint: fc.boolean().map((from) => (on) => on.checkpoint(from)),
  tidy: fc.constant((on) => on.engine.tidyUp()),
  erase: fc.constantFrom('u1', 'u2').map((user) => (on) => on.engine.erase('acme', 'user', user)),
}
const weights: Readonly<Record<string, number>> = {
  plan: 2,
  policy: 2,
  erase: 1,
  override: 1,
  revoke: 1,
  grant: 3,
  wait: 5,
  checkpoint: 2,
  tidy: 1,
}
const deed = fc.oneof(
  ...Object.entries(deeds).map(([name, arbitrary]) => ({ weight: weights[name] ?? 4, arbitrary })),
)

test('whatever happens to an account, nothing disagrees', async () => {
  const runs = Number(process.env.SLUICE_HISTORIES ?? (process.env.SLUICE_LONG === '1' ? 3_000 : 60))
  await fc.assert(
    fc.asyncProperty(
      fc.constantFrom(...PLANS),
      fc.array(deed, { maxLength: 70, size: 'max' }),
      async (plan, played) => {
        const on = await history(POLICY)
        await on.create(plan)
        for (const [count, act] of played.entries()) {
          on.wait(1)
          try {
            await act(on, count)
          } catch (error) {
            // What is refused is part of life here; a defect is not.
            if (!(error instanceof SluiceError || error instanceof assert.AssertionError)) throw error
            if (error instanceof SluiceError && error.code === 'internal') throw error
          }
        }
        const kept = await on.keep()
        assert.deepEqual(auditOf(kept), [])
        if (accountOf(kept).checkpoint !== undefined) assert.deepEqual(auditOf(kept, { resume: true }), [])
      },
    ),
    { numRuns: runs },
  )
})
