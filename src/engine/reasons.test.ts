import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { ALL_CREDITS, CREDITS_ONLY, during, type Scene, scene } from '../../test/scene.ts'
import { REASONS } from '../kernel/reasons.ts'
import type { GuardDocument, PlanDocument, SourceDocument } from '../policy/schema.ts'
import type { ReserveRequest } from '../wire.ts'

/** The order of the design, most fundamental first. */
const ORDER =
  'released hold_closed account_suspended account_closed feature_not_allowed subject_limit too_large rate_full ' +
  'concurrency_full budget_spent in_debt allowance_spent credits_short overage_spent granted_in_part granted'

const ASKED = 10

/** One thing that blocks a request of 10, made so that any two of them can be put together. */
interface Blocker {
  readonly reason: string
  readonly plan?: Partial<PlanDocument>
  readonly guard?: GuardDocument
  /** Sources in place of the credits that would pay for everything. */
  readonly source?: SourceDocument
  readonly before?: (on: Scene) => Promise<unknown>
  readonly asked?: Partial<ReserveRequest>
}

const status = (to: 'suspended' | 'closed') => (on: Scene) => on.engine.patchAccount('a', { status: to })
/** What has happened is counted by all guards and refused by none. */
const happened = (id: string, cost: number, subject?: Record<string, string>) => (on: Scene) =>
  on.record(id, { cost, ...(subject === undefined ? {} : { subject }) })

// biome-ignore format: a row a line
const BLOCKERS: readonly Blocker[] = [
  { reason: 'account_suspended', before: status('suspended') },
  { reason: 'account_closed', before: status('closed') },
  { reason: 'feature_not_allowed', plan: { features: ['job', 'task'] }, asked: { feature: 'other' } },
  { reason: 'subject_limit', plan: { subjects: { user: { max: 1 } } }, before: happened('u0', 0, { user: 'u0' }), asked: { subject: { user: 'u1' } } },
  { reason: 'too_large', guard: { name: 'big', rate: { meter: 'cost', limit: 8, per: '1h' } } },
  { reason: 'rate_full', guard: { name: 'often', rate: { meter: 'requests', limit: 1, per: '1h' } }, before: happened('r0', 0) },
  { reason: 'concurrency_full', guard: { name: 'at-once', concurrency: 1 }, before: (on) => on.reserve('c0', 0) },
  { reason: 'budget_spent', guard: { name: 'month', budget: 15, per: 'month' }, before: happened('b0', 6) },
  { reason: 'in_debt', source: ALL_CREDITS, before: owe },
  { reason: 'allowance_spent', source: { allowance: 'small', windows: [{ name: '5h', limit: 4, per: '5h' }] } },
  { reason: 'credits_short', source: ALL_CREDITS },
  { reason: 'overage_spent', source: { overage: { limit: 4, per: 'month' } } },
]

/** Credits that are bound to a feature repay nothing and are there: only the debt stands in their way. */
async function owe(on: Scene): Promise<void> {
  await on.record('d0', 500)
  await on.grant('bound', 1000, { features: ['job', 'other'] })
}

/** Holds are taken first, while they are admitted; the account's status comes last. */
const turn = ({ reason }: Blocker): number =>
  reason === 'concurrency_full' ? 0 : reason.startsWith('account_') ? 2 : 1

async function blocked(blockers: readonly Blocker[]): Promise<{ on: Scene; asked: Partial<ReserveRequest> }> {
  const pays = blockers.flatMap(({ source }) => (source === undefined ? [] : [source]))
  const waterfall = pays.length === 0 ? [ALL_CREDITS] : pays.filter((one, at) => pays.indexOf(one) === at)
  const guards = blockers.flatMap(({ guard }) => (guard === undefined ? [] : [guard]))
  const plan = Object.assign({ waterfall, guards }, ...blockers.map((one) => one.plan)) as PlanDocument
  const on = await scene(plan)
  if (pays.length === 0) await on.grant('plenty', 1000)
  for (const { before } of [...blockers].sort((a, b) => turn(a) - turn(b))) await before?.(on)
  return { on, asked: Object.assign({ cost: ASKED }, ...blockers.map((one) => one.asked)) }
}

async function proveRefused(blockers: readonly Blocker[], reason: string): Promise<void> {
  const { on, asked } = await blocked(blockers)
  const before = { kept: await on.kept(), view: await on.view(asked.subject) }
  for (const dry_run of [false, true]) {
    const answer = await on.reserve('asked', { ...asked, dry_run })
    assert.equal(answer.reason, reason)
    assert.ok(answer.outcome === 'deny' || answer.outcome === 'wait', answer.outcome)
    assert.partialDeepStrictEqual(answer, {
      cost: '10',
      granted: '0',
      from: [],
      expires_at: null,
      state: 'none',
    })
  }
  assert.deepEqual({ kept: await on.kept(), view: await on.view(asked.subject) }, before)
  await on.agree()
}

test('reasons stand in one order, most fundamental first', () => {
  assert.deepEqual(REASONS, ORDER.split(' '))
})

describe('a reserve that is blocked by one thing names it, and changes nothing', () => {
  for (const blocker of BLOCKERS) test(blocker.reason, () => proveRefused([blocker], blocker.reason))
})

describe('a reserve that is blocked by two things names the more fundamental, and changes nothing', () => {
  for (const [at, first] of BLOCKERS.entries()) {
    test(`${first.reason}, before each that comes after it`, async () => {
      for (const second of BLOCKERS.slice(at + 1)) {
        if (first.reason === 'account_suspended' && second.reason === 'account_closed') continue
        await during(`with ${second.reason}`, () => proveRefused([first, second], first.reason))
      }
    })
  }
})

test('what blocks is told whole: every guard and source stands in the limits, also behind the one that names the refusal', async () => {
  const named = [
    'rate_full',
    'concurrency_full',
    'budget_spent',
    'allowance_spent',
    'credits_short',
    'overage_spent',
  ]
  const { on, asked } = await blocked(BLOCKERS.filter(({ reason }) => named.includes(reason)))
  const { limits } = await on.reserve('asked', asked)
  assert.deepEqual(
    limits.map(({ kind, name }) => `${kind} ${name}`),
    [
      'rate often',
      'concurrency at-once',
      'budget month',
      'allowance small/5h',
      'credits free+promo+plan+enterprise+adjustment+purchased',
      'overage overage',
    ],
  )
})

describe('answers that name no refusal', () => {
  test('granted', async () => {
    const on = await scene(CREDITS_ONLY)
    await on.grant('g', 10)
    assert.partialDeepStrictEqual(await on.reserve('r', 10), {
      outcome: 'allow',
      reason: 'granted',
      state: 'open',
    })
  })
  test('granted_in_part', async () => {
    const on = await scene(CREDITS_ONLY)
    await on.grant('g', 9)
    const answer = await on.reserve('r', { cost: 10, min_cost: 9 })
    assert.partialDeepStrictEqual(answer, {
      outcome: 'partial',
      reason: 'granted_in_part',
      cost: '10',
      granted: '9',
    })
  })
})

describe('a closed request says so before anything else', () => {
  test('released: a reserve that comes after its release, though the account is suspended', async () => {
    const on = await scene(CREDITS_ONLY)
    await on.release('r')
    await status('suspended')(on)
    const before = await on.kept()
    const answer = await on.reserve('r', 10)
    assert.partialDeepStrictEqual(answer, {
      outcome: 'deny',
      reason: 'released',
      granted: '0',
      state: 'released',
    })
    assert.deepEqual(await on.kept(), before)
  })
  for (const to of ['suspended', 'closed'] as const) {
    test(`hold_closed: an extend that comes after its settle, though the account is ${to}`, async () => {
      const on = await scene(CREDITS_ONLY)
      await on.grant('g', 10)
      await on.reserve('r', 10)
      await on.settle('r', 5)
      await status(to)(on)
      const before = await on.kept()
      const answer = await on.extend('r', 1, 20)
      assert.partialDeepStrictEqual(answer, { outcome: 'deny', reason: 'hold_closed', state: 'settled' })
      assert.deepEqual(await on.kept(), before)
    })
  }
})

describe('an extend of a hold of 10 to 22 is asked for the difference', () => {
  const more = happened('more', 5)
  // biome-ignore format: a row a line
  const rows: readonly [reason: string, plan: PlanDocument, credits: number, before?: (on: Scene) => Promise<unknown>][] = [
    ['account_suspended', CREDITS_ONLY, 100, status('suspended')],
    ['account_closed', CREDITS_ONLY, 100, status('closed')],
    ['too_large', { ...CREDITS_ONLY, guards: [{ name: 'big', rate: { meter: 'cost', limit: 11, per: '1h' } }] }, 100],
    ['rate_full', { ...CREDITS_ONLY, guards: [{ name: 'much', rate: { meter: 'cost', limit: 20, per: '1h' } }] }, 100],
    ['budget_spent', { ...CREDITS_ONLY, guards: [{ name: 'month', budget: 21, per: 'month' }] }, 100],
    ['in_debt', CREDITS_ONLY, 10, more],
    ['allowance_spent', { waterfall: [{ allowance: 'a', windows: [{ name: 'w', limit: 21, per: '5h' }] }] }, 0],
    ['credits_short', CREDITS_ONLY, 21],
    ['overage_spent', { waterfall: [{ overage: { limit: 21, per: 'month' } }] }, 0],
    ['granted', { ...CREDITS_ONLY, guards: [{ name: 'often', rate: { meter: 'requests', limit: 1, per: '1h' } }] }, 100],
    ['granted', { ...CREDITS_ONLY, guards: [{ name: 'at-once', concurrency: 1 }] }, 100],
    ['granted', { ...CREDITS_ONLY, guards: [{ name: 'month', budget: 22, per: 'month' }] }, 22],
  ]
  for (const [reason, plan, credits, before] of rows) {
    test(`${reason}${plan.guards === undefined ? '' : ` (${JSON.stringify(plan.guards)})`}`, async () => {
      const on = await scene(plan)
      if (credits > 0) await on.grant('g', credits)
      const first = await on.reserve('r', 10)
      assert.equal(first.outcome, 'allow')
      await before?.(on)
      const kept = await on.kept()
      const answer = await on.extend('r', 1, 22)
      assert.equal(answer.reason, reason)
      assert.equal(answer.state, 'open')
      if (reason === 'granted') {
        assert.partialDeepStrictEqual(answer, { outcome: 'allow', cost: '22', granted: '22' })
      } else {
        assert.partialDeepStrictEqual(answer, {
          granted: '10',
          from: first.from,
          expires_at: first.expires_at,
        })
        assert.deepEqual(await on.kept(), kept, 'a refused extend does not harm what is held')
      }
      await on.agree()
    })
  }
})
