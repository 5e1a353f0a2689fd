import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { ALL_CREDITS, cu, DAY, during, HOUR, MINUTE, type Scene, START, scene } from '../../test/scene.ts'
import type { AccountCell } from '../kernel/cells.ts'
import type { GuardDocument, PlanDocument, SourceDocument } from '../policy/schema.ts'
import type { DecisionAnswer, Share } from '../wire.ts'

// Every way out of a hold, from every kind of source, whatever happened meanwhile. A hold of 10 units, or of 12 where it
// has grown; 16 is more than was held. What must come out: nothing is held, and exactly what was used is charged.

const USER = { user: 'u1' }

// biome-ignore format: a row a line
const SOURCES: readonly [what: string, waterfall: readonly SourceDocument[], bought: number][] = [
  ['an allowance of two windows', [included(100, 100)], 20],
  ['a grant', [ALL_CREDITS], 20],
  ['overage', [{ overage: { limit: 100, per: 'month' } }], 20],
  ['all sources, split', [included(100, 4), { credits: ['promo'] }, { credits: ['purchased'] }, { overage: { limit: 100, per: 'month' } }], 1],
]
function included(five: number, seven: number): SourceDocument {
  return {
    allowance: 'included',
    by: 'user',
    windows: [
      { name: '5h', limit: five, per: '5h' },
      { name: '7d', limit: seven, per: '7d' },
    ],
  }
}
const GUARDS: readonly GuardDocument[] = [
  { name: 'requests', rate: { meter: 'requests', limit: 100, per: '300d', algorithm: 'fixed' }, by: 'user' },
  { name: 'cost', rate: { meter: 'cost', limit: 100, per: '300d', algorithm: 'fixed' } },
  { name: 'units', rate: { meter: 'units', limit: 100, per: '300d', algorithm: 'sliding' }, by: 'user' },
  { name: 'in-flight', concurrency: 1 },
  { name: 'user-in-flight', concurrency: 1, by: 'user' },
  { name: 'budget', budget: 100, per: 'month', by: 'user' },
]

interface Exit {
  readonly what: string
  readonly on_expiry?: 'charge'
  /** What the caller told of its progress. */
  readonly used?: number
  readonly by: 'release' | 'settle' | 'expiry'
  /** What is charged, of a hold of so much. */
  readonly charged: (held: number) => number
}
// biome-ignore format: a row a line
const EXITS: readonly Exit[] = [
  { what: 'release', by: 'release', charged: () => 0 },
  { what: 'a settle of nothing', by: 'settle', charged: () => 0 },
  { what: 'a settle of less', by: 'settle', charged: () => 6 },
  { what: 'a settle of the same', by: 'settle', charged: (held) => held },
  { what: 'a settle of more', by: 'settle', charged: () => 16 },
  { what: 'its end', by: 'expiry', charged: () => 0 },
  { what: 'its end, with progress told', by: 'expiry', used: 3, charged: () => 0 },
  { what: 'its end, charged', by: 'expiry', on_expiry: 'charge', charged: (held) => held },
  { what: 'its end, charged with progress told', by: 'expiry', on_expiry: 'charge', used: 3, charged: () => 3 },
  { what: 'its end, charged with more progress than was held', by: 'expiry', on_expiry: 'charge', used: 14, charged: () => 14 },
]

const MEANWHILE: Readonly<Record<string, (on: Scene, plan: PlanDocument) => Promise<unknown> | undefined>> = {
  'nothing else happened': () => undefined,
  'it had grown': () => undefined,
  'the grants were revoked': async (on) => {
    await on.engine.revokeGrant('a', 'promo')
    await on.engine.revokeGrant('a', 'bought')
  },
  'the grants had expired and windows ended': async (on) => on.after(3 * DAY),
  'all windows had ended': async (on) => on.after(20 * DAY),
  'all windows had ended and others opened': async (on) => {
    on.after(20 * DAY)
    await on.record('other', { feature: 'task', usage: { units: 2 }, subject: USER })
  },
  'the account had changed its plan': (on) => on.engine.patchAccount('a', { plan: 'next' }),
  'the plan had lost its guards and allowances': (on) => on.publish({ waterfall: [ALL_CREDITS] }),
  'all limits were lowered': (on, plan) => on.publish(lowered(plan)),
  'the account was closed': (on) => on.engine.patchAccount('a', { status: 'closed' }),
}

const TAKES_TIME = Object.keys(MEANWHILE).filter(
  (what) => what.includes('had ended') || what.includes('expired'),
)
const REMOVES = ['the account had changed its plan', 'the plan had lost its guards and allowances']

/** The same names, and nothing left. */
function lowered(plan: PlanDocument): PlanDocument {
  const text = JSON.stringify(plan).replaceAll(/("limit"|"budget"):\d+/g, '$1:1')
  return JSON.parse(text)
}

const next: PlanDocument = {
  guards: [{ name: 'budget', budget: 100, per: 'month' }],
  waterfall: [{ allowance: 'more', windows: [{ name: 'day', limit: 50, per: 'day' }] }, ALL_CREDITS],
}

interface Left {
  readonly on: Scene
  readonly held: DecisionAnswer
  /** What was charged, and from where. */
  readonly from: readonly Share[]
}

async function leave(source: (typeof SOURCES)[number], exit: Exit, meanwhile: string): Promise<Left> {
  const [, waterfall, bought] = source
  const ttl = TAKES_TIME.includes(meanwhile) ? '35d' : '10m'
  const hold = { ttl, max_lifetime: '35d', on_expiry: exit.on_expiry ?? 'release' } as const
  const plan: PlanDocument = { guards: GUARDS, waterfall: [...waterfall], hold }
  const on = await scene(plan, { policy: { plans: { plan, next } } })
  await on.grant('promo', 4, { kind: 'promo', expires_at: START + 2 * DAY })
  await on.grant('bought', bought, { expires_at: START + 2 * DAY })
  let held = await on.reserve('r', { feature: 'task', estimate: { units: 10 }, subject: USER })
  if (meanwhile === 'it had grown') held = await on.extend('r', 1, { estimate: { units: 12 } })
  assert.equal(held.outcome, 'allow', held.reason)
  if (exit.used !== undefined)
    await on.extend('r', held.granted === '12' ? 2 : 1, { used: { units: exit.used } })
  on.after(1)
  await MEANWHILE[meanwhile]?.(on, plan)
  await on.agree()

  const charged = exit.charged(Number(held.granted))
  const returned = cu(Math.max(0, Number(held.granted) - charged))
  if (exit.by === 'release') assert.equal((await on.release('r')).returned, returned)
  if (exit.by === 'settle') {
    const answer = await on.settle('r', { usage: { units: charged } })
    assert.partialDeepStrictEqual(answer, { state: 'settled', charged: cu(charged), returned })
  }
  if (exit.by === 'expiry') {
    on.clock.now = held.expires_at ?? assert.fail('a hold has an end')
    assert.equal(await on.engine.sweep(), 1)
  }
  const charges = (await on.told('charge')).filter(({ request }) => request === 'r')
  assert.equal(charges.length, exit.by === 'settle' || exit.on_expiry === 'charge' ? 1 : 0)
  const from = charges.flatMap((entry) => (entry.kind === 'charge' ? entry.cover : []))
  return { on, held, from: from.map(([name, amount]) => ({ source: name, amount: cu(amount / 1_000_000) })) }
}

/** Nothing is held by anybody, neither in what is shown nor in what is kept. */
async function nothingHeld(on: Scene): Promise<void> {
  const view = await on.view(USER)
  assert.equal(view.open_holds, 0)
  assert.equal(view.credits.held, '0')
  for (const { name, held } of [...view.limits, ...view.allowances.flatMap((one) => one.windows)])
    assert.equal(held, '0', name)
  const { cells } = await on.kept()
  const account = cells.account as AccountCell
  assert.equal(account.dueAt, null)
  for (const { id, held } of account.grants) assert.equal(held, 0, id)
  for (const [key, cell] of Object.entries(cells)) {
    if (!('counters' in cell)) continue
    for (const [name, window] of Object.entries(cell.counters.windows))
      assert.equal(window.held, 0, `${key} ${name}`)
    assert.deepEqual(cell.counters.concurrency, {}, key)
  }
}

/** What a hold of these parts charges of an amount within it: in its own order, the last source goes back first. */
function within(parts: readonly Share[], amount: number): Share[] {
  let left = amount
  return parts.flatMap(({ source, amount: part }) => {
    const taken = Math.min(left, Number(part))
    left -= taken
    return taken === 0 ? [] : [{ source, amount: cu(taken) }]
  })
}

const total = (parts: readonly Share[]): number => parts.reduce((all, { amount }) => all + Number(amount), 0)

async function prove(source: (typeof SOURCES)[number], exit: Exit, meanwhile: string): Promise<void> {
  const { on, held, from } = await leave(source, exit, meanwhile)
  await nothingHeld(on)
  await on.agree()

  const charged = exit.charged(Number(held.granted))
  assert.equal(cu(total(from)), cu(charged))
  const inside = within(held.from, charged)
  if (charged <= Number(held.granted)) assert.deepEqual(from, inside)
  else
    for (const { source: name, amount } of inside)
      assert.ok(total(from.filter((one) => one.source === name)) >= Number(amount))

  const others = meanwhile === 'all windows had ended and others opened' ? 2 : 0
  const view = await on.view(USER)
  const used = Object.fromEntries(view.limits.map((limit) => [limit.name, limit.used]))
  if ('cost' in used) {
    assert.equal(used.cost, cu(charged + others), 'the rate over cost counts what was charged')
    assert.equal(used.units, cu(charged + others), 'the rate over units counts what was used')
    assert.equal(used.requests, others === 0 ? '1' : '2', 'a request counts once, and for good')
  }
  if (REMOVES.includes(meanwhile)) {
    const { cells } = await on.kept()
    for (const [key, cell] of Object.entries(cells))
      if ('counters' in cell)
        assert.deepEqual(
          Object.keys(cell.counters.windows).filter((name) => name.startsWith('included')),
          [],
          key,
        )
  } else if (!meanwhile.startsWith('the account')) {
    const again = await on.reserve('s', { feature: 'task', estimate: { units: 1 }, subject: USER })
    assert.notEqual(again.reason, 'concurrency_full', 'a dead hold refuses nobody')
  }
}

for (const source of SOURCES) {
  describe(`a hold of ${source[0]} comes to nothing held and its use charged`, () => {
    for (const exit of EXITS) {
      test(`by ${exit.what}, whatever happened meanwhile`, async () => {
        for (const meanwhile of Object.keys(MEANWHILE))
          await during(meanwhile, () => prove(source, exit, meanwhile))
      })
    }
  })
}

describe('what meanwhile happened is left alone', () => {
  const plan: PlanDocument = { waterfall: [included(20, 100)], hold: { ttl: '10h' } }
  const reserve = (on: Scene) => on.reserve('r', { cost: 10, subject: USER })
  const windows = async (on: Scene) =>
    (await on.view(USER)).allowances[0]?.windows.map(({ used, held }) => `${used}+${held}`)

  test('a window that opened meanwhile starts clean, and stays so for what was held', async () => {
    const on = await scene(plan)
    await reserve(on)
    on.after(6 * HOUR)
    assert.deepEqual(await windows(on), ['0+0', '0+10'])
    await on.record('other', { cost: 2, subject: USER })
    await on.settle('r', 8)
    assert.deepEqual(await windows(on), ['2+0', '10+0'])
  })
  test('what is beyond the hold is charged to the window that is open now', async () => {
    const on = await scene(plan)
    await reserve(on)
    on.after(6 * HOUR)
    await on.settle('r', 13)
    assert.deepEqual(await windows(on), ['3+0', '13+0'])
  })
  test('a window that its hold opened stays open after a release', async () => {
    const on = await scene(plan)
    await reserve(on)
    await on.release('r')
    on.after(HOUR)
    await on.record('other', { cost: 1, subject: USER })
    const [five] = (await on.view(USER)).allowances[0]?.windows ?? []
    assert.equal(five?.resets_at, START + 5 * HOUR)
  })
  test('what returns to a grant that has ended ends at once, and what was used of it stays charged', async () => {
    for (const how of ['revoked', 'expired'] as const) {
      const on = await scene({ waterfall: [ALL_CREDITS], hold: { ttl: '10h' } })
      await on.grant('g', 15, { expires_at: START + HOUR })
      await on.reserve('r', 10)
      if (how === 'revoked') await on.engine.revokeGrant('a', 'g')
      else on.after(HOUR)
      const [before] = (await on.view()).credits.grants
      assert.partialDeepStrictEqual(before, { remaining: '10', held: '10', status: how })
      assert.equal((await on.view()).credits.available, '0')
      await on.settle('r', 4)
      const moved = (await on.told('balance')).flatMap((entry) =>
        entry.kind === 'balance' ? [[entry.from, entry.to, entry.amount / 1_000_000]] : [],
      )
      assert.deepEqual(moved, [
        ['issued', 'grant:g', 15],
        ['grant:g', how, 5],
        ['grant:g', 'charged', 4],
        ['grant:g', how, 6],
      ])
      assert.deepEqual((await on.view()).credits.grants, [], 'and leaves the account')
      assert.partialDeepStrictEqual((await on.engine.grants('a', {})).items, [
        { id: 'g', remaining: '0', status: how },
      ])
    }
  })
})

test('a hold whose end has come is closed before anything else happens to its account', async () => {
  const on = await scene({ guards: [{ name: 'one', concurrency: 1 }], waterfall: [ALL_CREDITS] })
  await on.grant('g', 10)
  await on.reserve('r', 10)
  on.after(10 * MINUTE - 1)
  assert.equal((await on.reserve('s', 10)).reason, 'concurrency_full')
  on.after(1)
  assert.equal((await on.reserve('s', 10)).outcome, 'allow', 'without a sweep')
  const closed = (await on.told('change')).find(
    (entry) => entry.kind === 'change' && entry.what === 'hold_closed',
  )
  assert.equal(closed?.at, START + 10 * MINUTE)
  await on.agree()
})
