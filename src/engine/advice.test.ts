import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import {
  ALL_CREDITS,
  cu,
  DAY,
  during,
  HOUR,
  MICRO,
  MINUTE,
  type Scene,
  START,
  scene,
} from '../../test/scene.ts'
import type { GuardDocument, PlanDocument, SourceDocument } from '../policy/schema.ts'
import type { DecisionAnswer, ReserveRequest, Unblock } from '../wire.ts'

// Advice is followed: each probe builds the same state afresh, does what the refusal said, and asks again. What was said
// must be enough, and where it was exact, a millisecond or a µCU less must not be.

type Asked = Partial<ReserveRequest>
interface Situation {
  readonly plan: PlanDocument
  readonly before?: (on: Scene) => Promise<unknown>
  readonly asked: Asked
}

async function arise({ plan, before }: Situation): Promise<Scene> {
  const on = await scene({ patience: '300d', ...plan })
  await before?.(on)
  return on
}

const admitted = ({ outcome }: DecisionAnswer): boolean => outcome === 'allow'

/** Asks again after so long and with so many credits more. */
async function askedAfter(
  situation: Situation,
  changed: { waitMs?: number; credits?: number; asked?: Asked },
) {
  const on = await arise(situation)
  if ((changed.credits ?? 0) > 0) await on.grant('advised', changed.credits ?? 0)
  on.after(changed.waitMs ?? 0)
  return on.reserve('again', { ...situation.asked, ...changed.asked })
}

/** Follows what a refusal advises, all the way; answers the refusal. */
async function follow(situation: Situation): Promise<DecisionAnswer> {
  const on = await arise(situation)
  const refusal = await on.reserve('asked', situation.asked)
  const { unblock = {}, decided_at } = refusal
  assert.ok(refusal.outcome === 'wait' || refusal.outcome === 'deny', `${refusal.outcome} ${refusal.reason}`)
  assert.equal(decided_at, on.clock.now)
  const waits = unblock.wait_until !== undefined
  const waitMs = waits ? (unblock.wait_until as number) - decided_at : 0
  const credits = Number(unblock.credits ?? 0)
  assert.ok(!waits || waitMs > 0, 'a wait ends later than now')
  assert.equal(refusal.outcome, waits && unblock.credits === undefined ? 'wait' : 'deny')
  assert.equal(refusal.retry_after_ms, refusal.outcome === 'wait' ? waitMs : undefined)

  if (waits || credits > 0) {
    const answer = await askedAfter(situation, { waitMs, credits })
    assert.ok(admitted(answer), `${told(unblock)} is enough: ${answer.reason} ${told(answer.unblock)}`)
  }
  if (waits && unblock.at_latest === undefined)
    assert.ok(
      !admitted(await askedAfter(situation, { waitMs: waitMs - 1, credits })),
      'a millisecond too early',
    )
  if (credits > 0)
    assert.ok(!admitted(await askedAfter(situation, { waitMs, credits: credits - MICRO })), 'a µCU too few')
  await followDown(situation, unblock)
  return refusal
}

/** A smaller request fits now, and none larger; without one nothing does. */
async function followDown(situation: Situation, unblock: Unblock): Promise<void> {
  if (situation.asked.cost === undefined) return
  const most = Number(unblock.at_most ?? 0)
  assert.ok(most < Number(situation.asked.cost))
  if (most > 0)
    assert.ok(admitted(await askedAfter(situation, { asked: { cost: cu(most) } })), `${most} fits now`)
  const more = await askedAfter(situation, { asked: { cost: cu(most + MICRO) } })
  assert.ok(!admitted(more), `more than ${most} does not fit now`)
}

const told = (unblock: Unblock | undefined): string => JSON.stringify(unblock)

const often: GuardDocument = { name: 'often', rate: { meter: 'requests', limit: 6, per: '1m', burst: 2 } }
const amount = (algorithm: 'gcra' | 'sliding' | 'fixed'): GuardDocument => ({
  name: 'amount',
  rate: { meter: 'cost', limit: 12, per: '2h', algorithm },
})
const inFlight: GuardDocument = { name: 'in-flight', concurrency: 1 }
const monthly: GuardDocument = { name: 'monthly', budget: 15, per: 'month' }
const windows = (five: number, seven: number): SourceDocument => ({
  allowance: 'included',
  windows: [
    { name: '5h', limit: five, per: '5h' },
    { name: '7d', limit: seven, per: '7d' },
  ],
})
const overage = (limit: number): SourceDocument => ({ overage: { limit, per: 'month' } })
const many = async (on: Scene, count: number): Promise<void> => {
  for (let n = 0; n < count; n++) await on.record(`n${n}`, 0)
}
const granted =
  (...amounts: number[]) =>
  async (on: Scene): Promise<void> => {
    for (const [n, one] of amounts.entries()) await on.grant(`g${n}`, one)
  }
const FEBRUARY = Date.UTC(2026, 1, 1)

describe('what a refusal advises is true and exact', () => {
  const pays = {
    waterfall: [{ allowance: 'all', windows: [{ name: 'w', limit: 1000, per: '30d' }] }],
  } as const
  // biome-ignore format: a row a line
  const rows: readonly [what: string, situation: Situation, reason: string, unblock: Unblock][] = [
    ['a rate over requests', { plan: { ...pays, guards: [often] }, before: (on) => many(on, 2), asked: { cost: 1 } }, 'rate_full', { wait_until: START + 10_000 }],
    ['a rate over requests, far past its limit', { plan: { ...pays, guards: [often] }, before: (on) => many(on, 9), asked: { cost: 1 } }, 'rate_full', { wait_until: START + 80_000 }],
    ['a rate over cost, draining', { plan: { ...pays, guards: [amount('gcra')] }, before: (on) => on.record('r', 9), asked: { cost: 5 } }, 'rate_full', { wait_until: START + 20 * MINUTE, at_most: '3' }],
    ['a rate over cost, sliding', { plan: { ...pays, guards: [amount('sliding')] }, before: async (on) => { await on.record('r', 4); on.after(HOUR); await on.record('s', 6) }, asked: { cost: 5 } }, 'rate_full', { wait_until: START + 2 * HOUR, at_most: '2' }],
    ['a rate over cost, fixed', { plan: { ...pays, guards: [amount('fixed')] }, before: (on) => on.record('r', 9), asked: { cost: 5 } }, 'rate_full', { wait_until: START + 2 * HOUR, at_most: '3' }],
    ['more than a rate ever admits', { plan: { ...pays, guards: [amount('gcra')] }, asked: { cost: 13 } }, 'too_large', { at_most: '12' }],
    ['one hold too many', { plan: { ...pays, guards: [inFlight] }, before: (on) => on.reserve('r', 1), asked: { cost: 1 } }, 'concurrency_full', { wait_until: START + 10 * MINUTE, at_latest: true }],
    ['the earliest of several holds', { plan: { ...pays, guards: [{ ...inFlight, concurrency: 2 }] }, before: async (on) => { await on.reserve('r', { cost: 1, ttl_ms: HOUR }); await on.reserve('s', { cost: 1, ttl_ms: MINUTE }) }, asked: { cost: 1 } }, 'concurrency_full', { wait_until: START + MINUTE, at_latest: true }],
    ['a monthly budget', { plan: { ...pays, guards: [monthly] }, before: (on) => on.record('r', 12), asked: { cost: 4 } }, 'budget_spent', { wait_until: FEBRUARY, at_most: '3' }],
    ['more than a budget ever has', { plan: { ...pays, guards: [monthly] }, asked: { cost: 16 } }, 'budget_spent', { at_most: '15' }],
    ['the five hours of an allowance', { plan: { waterfall: [windows(10, 50)] }, before: (on) => on.record('r', 8), asked: { cost: 5 } }, 'allowance_spent', { wait_until: START + 5 * HOUR, at_most: '2' }],
    ['the seven days of an allowance', { plan: { waterfall: [windows(10, 18)] }, before: async (on) => { await on.record('r', 10); on.after(5 * HOUR); await on.record('s', 5) }, asked: { cost: 5 } }, 'allowance_spent', { wait_until: START + 7 * DAY, at_most: '3' }],
    ['more than an allowance ever has', { plan: { waterfall: [windows(10, 50)] }, asked: { cost: 11 } }, 'allowance_spent', { at_most: '10' }],
    ['too few credits', { plan: { waterfall: [ALL_CREDITS] }, before: granted(3), asked: { cost: 10 } }, 'credits_short', { credits: '7', at_most: '3' }],
    ['no credits', { plan: { waterfall: [ALL_CREDITS] }, asked: { cost: '0.000001' } }, 'credits_short', { credits: '0.000001' }],
    ['an allowance that waiting fills, before credits', { plan: { waterfall: [windows(10, 50), ALL_CREDITS] }, before: async (on) => { await on.record('r', 7); await on.grant('g', 2) }, asked: { cost: 10 } }, 'allowance_spent', { wait_until: START + 5 * HOUR, at_most: '5' }],
    ['an allowance too small for waiting, so credits', { plan: { waterfall: [windows(5, 50), ALL_CREDITS] }, before: async (on) => { await on.record('r', 2); await on.grant('g', 2) }, asked: { cost: 10 } }, 'allowance_spent', { credits: '5', at_most: '5' }],
    ['a debt, which credits repay first', { plan: { waterfall: [ALL_CREDITS] }, before: async (on) => { await on.grant('g', 1); await on.record('r', 5) }, asked: { cost: 10 } }, 'in_debt', { credits: '14' }],
    ['a debt, while an allowance comes back', { plan: { waterfall: [windows(10, 50), ALL_CREDITS] }, before: (on) => on.record('r', 15), asked: { cost: 10 } }, 'in_debt', { wait_until: START + 5 * HOUR }],
    ['overage', { plan: { waterfall: [overage(20)] }, before: (on) => on.record('r', 18), asked: { cost: 5 } }, 'overage_spent', { wait_until: FEBRUARY, at_most: '2' }],
    ['a rate, and credits', { plan: { waterfall: [ALL_CREDITS], guards: [often] }, before: async (on) => { await many(on, 2); await on.grant('g', 4) }, asked: { cost: 10 } }, 'rate_full', { wait_until: START + 10_000, credits: '6' }],
    ['a grant that is to start', { plan: { waterfall: [ALL_CREDITS] }, before: (on) => on.grant('g', 10, { starts_at: START + DAY }), asked: { cost: 10 } }, 'credits_short', { wait_until: START + DAY }],
    ['a grant that is to start, and a debt it repays', { plan: { waterfall: [ALL_CREDITS] }, before: async (on) => { await on.record('r', 1); await on.grant('g', 10, { starts_at: START + DAY }) }, asked: { cost: 10 } }, 'in_debt', { credits: '11' }],
    ['a grant that recurs', { plan: { waterfall: [ALL_CREDITS], grants: [{ kind: 'plan', amount: 10, every: 'day' }] }, before: (on) => on.record('r', 4), asked: { cost: 8 } }, 'credits_short', { wait_until: START + DAY / 2, at_most: '6' }],
    ['a grant that recurs and rolls over', { plan: { waterfall: [ALL_CREDITS], grants: [{ kind: 'plan', amount: 10, every: 'day', rollover: 5 }] }, before: (on) => on.record('r', 4), asked: { cost: 15 } }, 'credits_short', { wait_until: START + DAY / 2, at_most: '6' }],
    ['a limit lowered for an hour', { plan: { waterfall: [windows(10, 50)] }, before: (on) => on.override('included/5h', 1, { until_at: START + HOUR }), asked: { cost: 5 } }, 'allowance_spent', { wait_until: START + HOUR, at_most: '1' }],
    ['a limit raised for an hour', { plan: { waterfall: [windows(10, 50)] }, before: async (on) => { await on.override('included/5h', 20, { until_at: START + HOUR }); await on.record('r', 20) }, asked: { cost: 5 } }, 'allowance_spent', { wait_until: START + 5 * HOUR }],
    ['a rate lowered for an hour', { plan: { ...pays, guards: [amount('fixed')] }, before: async (on) => { await on.record('r', 4); await on.override('amount', 6, { until_at: START + HOUR }) }, asked: { cost: 5 } }, 'rate_full', { wait_until: START + HOUR, at_most: '2' }],
    ['a rate over a limit that is lowered for an hour: it drains by the one in force', { plan: { ...pays, guards: [amount('gcra')] }, before: async (on) => { await on.record('r', 15); await on.override('amount', 6, { until_at: START + HOUR }) }, asked: { cost: 5 } }, 'rate_full', { wait_until: START + 80 * MINUTE }],
    ['one at once for an hour, in place of two', { plan: { ...pays, guards: [{ ...inFlight, concurrency: 2 }], hold: { ttl: '2h' } }, before: async (on) => { await on.reserve('r', 1); await on.override('in-flight', 1, { until_at: START + HOUR }) }, asked: { cost: 1 } }, 'concurrency_full', { wait_until: START + HOUR, at_latest: true }],
    ['credits that end before the allowance is back', { plan: { waterfall: [windows(10, 50), ALL_CREDITS] }, before: async (on) => { await on.record('r', 10); await on.grant('g', 5, { expires_at: START + HOUR }) }, asked: { cost: 12 } }, 'allowance_spent', { credits: '7', at_most: '5' }],
  ]
  for (const [what, situation, reason, unblock] of rows) {
    test(what, async () => {
      const refusal = await follow(situation)
      assert.deepEqual({ reason: refusal.reason, unblock: refusal.unblock }, { reason, unblock })
    })
  }
})

describe('what holds of other requests keep is waited for, too', () => {
  const held = (on: Scene) => on.reserve('r', 8)
  // biome-ignore format: a row a line
  const rows: readonly [what: string, plan: PlanDocument][] = [
    ['an allowance', { waterfall: [windows(10, 50)] }],
    ['an allowance before credits', { waterfall: [windows(10, 50), ALL_CREDITS] }],
    ['a budget', { waterfall: [windows(100, 500)], guards: [{ ...monthly, budget: 10 }] }],
    ['overage', { waterfall: [overage(10)] }],
    ['an allowance whose holds charge themselves', { waterfall: [windows(10, 50)], hold: { on_expiry: 'charge' } }],
  ]
  for (const [what, plan] of rows) {
    test(`${what}: the instant is the latest`, async () => {
      const { unblock } = await follow({ plan, before: held, asked: { cost: 5 } })
      assert.equal(unblock?.at_latest, true)
    })
  }
  test('a hold that stands beside, and would not help, leaves the instant exact', async () => {
    const before = async (on: Scene) => {
      await on.record('s', 6)
      await on.reserve('r', 1)
    }
    const { unblock } = await follow({ plan: { waterfall: [windows(10, 50)] }, before, asked: { cost: 5 } })
    assert.deepEqual(unblock, { wait_until: START + 5 * HOUR, at_most: '3' })
  })
  test('credits', async () => {
    const before = async (on: Scene) => {
      await on.grant('g', 10)
      await held(on)
    }
    await follow({ plan: { waterfall: [ALL_CREDITS] }, before, asked: { cost: 5 } })
  })
})

test('a debt to which nothing can be added any more is told without credits, and is no error', async () => {
  const on = await scene({ waterfall: [ALL_CREDITS] })
  await on.record('r', { cost: '9007199254.740991' })
  const { outcome, reason, unblock } = await on.reserve('s', 1)
  assert.deepEqual([outcome, reason, unblock], ['deny', 'in_debt', undefined])
})

describe('everything that blocks together', () => {
  // biome-ignore format: a row a line
  const guards: readonly [what: string, guard: GuardDocument | undefined, before?: (on: Scene) => Promise<unknown>][] = [
    ['no rate', undefined],
    ['a full rate', often, (on) => many(on, 3)],
    ['a rate over cost', amount('gcra'), (on) => on.record('f', 5)],
    ['a rate that is too small', { name: 'small', rate: { meter: 'cost', limit: 8, per: '1h' } }],
  ]
  // biome-ignore format: a row a line
  const sources: readonly [what: string, waterfall: SourceDocument[], before?: (on: Scene) => Promise<unknown>][] = [
    ['an allowance', [windows(10, 50)], (on) => on.record('s', 4)],
    ['an allowance and credits', [windows(10, 50), ALL_CREDITS], async (on) => { await on.record('s', 4); await on.grant('s', 3) }],
    ['a small allowance and credits', [windows(6, 50), ALL_CREDITS], (on) => on.record('s', 4)],
    ['credits', [ALL_CREDITS], granted(3)],
    ['credits, in debt', [ALL_CREDITS], (on) => on.record('s', 4)],
    ['overage', [overage(12)], (on) => on.record('s', 4)],
    ['all of them', [windows(6, 50), ALL_CREDITS, overage(5)], async (on) => { await on.grant('s', 1); await on.record('s', 10) }],
  ]
  for (const [rate, guard, fill] of guards) {
    for (const [source, waterfall, spend] of sources) {
      test(`${rate}, ${source}, and with these a hold too many and a budget`, async () => {
        for (const [concurrency, budget] of [
          [false, false],
          [true, false],
          [false, true],
          [true, true],
        ]) {
          const plan = {
            waterfall,
            guards: [guard, concurrency ? inFlight : undefined, budget ? monthly : undefined].filter(
              (one) => one !== undefined,
            ),
          }
          const before = async (on: Scene): Promise<void> => {
            if (concurrency) await on.reserve('h', 0)
            await fill?.(on)
            await spend?.(on)
            if (budget) await on.record('b', 2)
          }
          await during(JSON.stringify({ concurrency, budget }), () =>
            follow({ plan, before, asked: { cost: 10 } }),
          )
        }
      })
    }
  }
})

describe('the outcome is `wait` exactly within the plan’s patience', () => {
  const plan = (patience: PlanDocument['patience']): PlanDocument => ({
    waterfall: [windows(10, 50)],
    ...(patience === undefined ? {} : { patience }),
  })
  // biome-ignore format: a row a line
  const rows: readonly [what: string, patience: PlanDocument['patience'], beforeEndMs: number, outcome: string][] = [
    ['an hour before its end, with the default', undefined, HOUR, 'wait'],
    ['a millisecond more', undefined, HOUR + 1, 'deny'],
    ['half an hour', '30m', 30 * MINUTE, 'wait'],
    ['and a millisecond more', '30m', 30 * MINUTE + 1, 'deny'],
    ['no patience', '0s', 1, 'deny'],
  ]
  for (const [what, patience, beforeEndMs, outcome] of rows) {
    test(what, async () => {
      const on = await scene(plan(patience))
      await on.record('r', 10)
      on.clock.now = START + 5 * HOUR - beforeEndMs
      const answer = await on.reserve('s', 5)
      assert.equal(answer.outcome, outcome)
      assert.equal(answer.retry_after_ms, outcome === 'wait' ? beforeEndMs : undefined)
      assert.deepEqual(answer.unblock, { wait_until: START + 5 * HOUR })
    })
  }
})

describe('what changes far away holds nobody up', () => {
  const plan: PlanDocument = {
    guards: [{ name: 'budget', budget: '5', per: 'day' }],
    waterfall: [ALL_CREDITS],
    grants: [{ kind: 'plan', amount: 2, every: 'day', rollover: 2 }],
    patience: '300d',
  }
  test('thousands of daily grants before the end of an exception are passed over, and the advice is still true', async () => {
    const until = START + 3_000 * DAY
    const before = async (on: Scene) => {
      await on.grant('bought', 1)
      await on.override('budget', 3, { until_at: until })
    }
    // Four are there at the end: of its day, of the day before, and what was bought is left.
    const refusal = await (await arise({ plan, before, asked: {} })).reserve('asked', { cost: '5' })
    assert.deepEqual(refusal.unblock, { wait_until: until, at_most: '3' })
    assert.ok(admitted(await askedAfter({ plan, before, asked: { cost: '5' } }, { waitMs: until - START })))
    const early = await askedAfter({ plan, before, asked: { cost: '5' } }, { waitMs: until - START - 1 })
    assert.equal(early.reason, 'budget_spent')
  })
  test('an exception until the end of the calendar is looked at within a moment', async () => {
    const on = await scene({ ...plan, grants: [{ kind: 'plan', amount: '1000000', every: 'day' }] })
    await on.override('budget', 3, { until_at: 253_402_300_799_999 })
    const startedAt = performance.now()
    assert.equal((await on.reserve('asked', { cost: '9000000' })).reason, 'budget_spent')
    // It took 37 s, and as a sum of credits it left the range of amounts.
    assert.ok(performance.now() - startedAt < 2_000)
  })
})
