import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import {
  ALL_CREDITS,
  CREDITS_ONLY,
  DAY,
  HOUR,
  MINUTE,
  refused,
  type Scene,
  SECOND,
  START,
  scene,
} from '../../test/scene.ts'
import type { PlanDocument } from '../policy/schema.ts'

const ms = (text: string): number => Temporal.Instant.from(text).epochMilliseconds

describe('windows turn at their instants, whatever a zone does to its clocks', () => {
  const budget = (per: 'hour' | 'day' | 'week' | 'month'): PlanDocument => ({
    guards: [{ name: 'b', budget: 10, per }],
    waterfall: [{ overage: { limit: 1000, per: 'month' } }],
  })
  // biome-ignore format: a row a line
  const rows: readonly [what: string, per: 'hour' | 'day' | 'week' | 'month', account: object, at: string, turns: string][] = [
    ['a day of 23 hours', 'day', { time_zone: 'America/New_York' }, '2026-03-08T05:00Z', '2026-03-09T04:00Z 2026-03-10T04:00Z'],
    ['a day of 25 hours', 'day', { time_zone: 'America/New_York' }, '2026-11-01T04:00Z', '2026-11-02T05:00Z 2026-11-03T05:00Z'],
    ['an hour that does not exist', 'hour', { time_zone: 'Europe/Berlin' }, '2026-03-29T00:30Z', '2026-03-29T01:00Z 2026-03-29T02:00Z'],
    ['an hour that comes twice', 'hour', { time_zone: 'Europe/Berlin' }, '2026-10-25T00:30Z', '2026-10-25T01:00Z 2026-10-25T02:00Z'],
    ['a day without a midnight', 'day', { time_zone: 'Africa/Cairo' }, '2026-04-23T12:00Z', '2026-04-23T22:00Z 2026-04-24T21:00Z'],
    ['a zone of half an hour', 'day', { time_zone: 'Asia/Kolkata' }, '2026-01-01T00:00Z', '2026-01-01T18:30Z 2026-01-02T18:30Z'],
    ['a leap day', 'month', { time_zone: 'UTC' }, '2028-02-10T00:00Z', '2028-03-01T00:00Z 2028-04-01T00:00Z'],
    ['a month’s end, from an anchor', 'month', { anchor_at: ms('2026-01-31T10:00Z') }, '2026-02-01T00:00Z', '2026-02-28T10:00Z 2026-03-31T10:00Z 2026-04-30T10:00Z'],
    ['a year’s end', 'week', { time_zone: 'UTC' }, '2026-12-31T00:00Z', '2027-01-04T00:00Z 2027-01-11T00:00Z'],
    ['a month in a zone east of Greenwich', 'month', { time_zone: 'Pacific/Auckland' }, '2026-03-31T00:00Z', '2026-03-31T11:00Z 2026-04-30T12:00Z'],
  ]
  for (const [what, per, account, at, turns] of rows) {
    test(`${what}: ${turns}`, async () => {
      const on = await scene(budget(per), { account, startAt: ms(at) })
      for (const [n, turn] of turns.split(' ').entries()) {
        await on.record(`r${n}`, 10)
        const refusal = await on.reserve(`s${n}`, 1)
        assert.deepEqual([refusal.reason, refusal.unblock?.wait_until], ['budget_spent', ms(turn)])
        on.clock.now = ms(turn) - 1
        assert.equal((await on.reserve(`t${n}`, 1)).reason, 'budget_spent', 'a millisecond before')
        on.after(1)
        assert.equal((await on.view()).limits[0]?.used, '0', 'at its instant')
        await on.agree()
      }
    })
  }

  test('a new zone begins when the present window ends', async () => {
    const on = await scene(budget('day'), { startAt: ms('2026-06-01T12:00Z') })
    await on.record('r', 4)
    await on.engine.patchAccount('a', { time_zone: 'Asia/Tokyo' })
    assert.partialDeepStrictEqual((await on.view()).limits, [
      { used: '4', resets_at: ms('2026-06-02T00:00Z') },
    ])
    on.clock.now = ms('2026-06-02T00:00Z')
    await on.record('s', 1)
    assert.partialDeepStrictEqual((await on.view()).limits, [
      { used: '1', resets_at: ms('2026-06-02T15:00Z') },
    ])
  })
})

describe('a window of first use', () => {
  const plan: PlanDocument = {
    waterfall: [{ allowance: 'i', windows: [{ name: '5h', limit: 10, per: '5h' }] }, ALL_CREDITS],
  }
  const end = async (on: Scene) => (await on.view()).allowances[0]?.windows[0]?.resets_at
  // biome-ignore format: a row a line
  const rows: readonly [what: string, first: (on: Scene) => Promise<unknown>, opens: boolean][] = [
    ['opens with a hold', (on) => on.reserve('r', 1), true],
    ['opens with a charge', (on) => on.record('r', 1), true],
    ['stays open though the hold is released', async (on) => { await on.reserve('r', 1); await on.release('r') }, true],
    ['does not open for nothing', async (on) => { await on.reserve('r', 0); await on.record('s', 0) }, false],
    ['does not open for a refusal', (on) => on.reserve('r', 11), false],
    ['does not open for a look', (on) => on.reserve('r', { cost: 1, dry_run: true }), false],
  ]
  for (const [what, first, opens] of rows) {
    test(what, async () => {
      const on = await scene(plan)
      await first(on)
      assert.equal(await end(on), opens ? START + 5 * HOUR : undefined)
      on.after(HOUR)
      await on.record('next', 1)
      assert.equal(await end(on), START + 5 * HOUR + (opens ? 0 : HOUR))
    })
  }
  test('runs its length and opens anew with the next use, not before', async () => {
    const on = await scene(plan)
    await on.record('r', 10)
    on.after(9 * HOUR)
    assert.equal((await on.view()).allowances[0]?.windows[0]?.remaining, '10')
    await on.record('s', 3)
    assert.equal(await end(on), START + 14 * HOUR)
    await on.agree()
  })
})

describe('an account’s time never runs backwards', () => {
  async function ahead(byMs: number): Promise<Scene> {
    const on = await scene(CREDITS_ONLY)
    await on.grant('g', 100, { starts_at: START - DAY })
    await on.reserve('r', 10)
    on.after(-byMs)
    return on
  }
  test('a small step back is clamped to the last instant it saw', async () => {
    for (const byMs of [1, MINUTE]) {
      const on = await ahead(byMs)
      assert.equal((await on.reserve('s', 1)).decided_at, START)
      assert.equal((await on.settle('r', 5)).charged, '5')
      for (const entry of [...(await on.told('decision')), ...(await on.told('charge'))])
        assert.equal(entry.at, START)
      await on.agree()
    }
  })
  test('a larger one is an error for every call, and changes nothing', async () => {
    const on = await ahead(MINUTE + 1)
    const kept = await on.kept()
    const behind = (call: () => Promise<unknown>) => refused('clock_behind', undefined, call)
    await behind(() => on.reserve('s', 1))
    await behind(() => on.extend('r', 1))
    await behind(() => on.settle('r', 1))
    await behind(() => on.release('r'))
    await behind(() => on.record('s', 1))
    await behind(() => on.refund('r', 'x'))
    await behind(() => on.grant('h', 1))
    await behind(() => on.engine.patchAccount('a', { status: 'suspended' }))
    assert.deepEqual(await on.kept(), kept)
    on.after(1)
    assert.equal((await on.reserve('s', 1)).outcome, 'allow', 'until the clock has come near again')
  })
  test('the error tells when to try again', async () => {
    const on = await ahead(HOUR)
    const { detail } = await refused('clock_behind', undefined, () => on.reserve('s', 1))
    assert.ok((detail.retryAfterMs ?? 0) >= HOUR - MINUTE && (detail.retryAfterMs ?? 0) <= HOUR)
  })
  test('an operator can repair it, once, with an entry', async () => {
    const on = await ahead(HOUR)
    await on.engine.repairClock('a', { actor: 'operator' })
    const kept = await on.kept()
    await on.engine.repairClock('a', { actor: 'operator' })
    assert.deepEqual(await on.kept(), kept, 'a repeat changes nothing')
    const repairs = (await on.told('change')).filter(
      (entry) => entry.kind === 'change' && entry.what === 'repair',
    )
    assert.equal(repairs.length, 1)
    assert.equal(repairs[0]?.actor, 'operator')
    const answer = await on.reserve('s', 1)
    assert.deepEqual([answer.outcome, answer.decided_at], ['allow', START - HOUR])
    assert.equal((await on.settle('r', 5)).charged, '5')
    await on.agree()
  })
  test('one account’s time is not another’s', async () => {
    const on = await ahead(HOUR)
    const other = await on.beside('b')
    assert.equal((await other.record('r', 0)).charged, '0')
  })
})

describe('a store whose clock jumps is not trusted', () => {
  async function watched() {
    const node = { wall: START, monotonic: 0 }
    const on = await scene(CREDITS_ONLY, { node: { wall: () => node.wall, monotonic: () => node.monotonic } })
    await on.grant('g', 100)
    /** Time passes for the store and for the node's two clocks. */
    const pass = (store: number, wall: number, monotonic: number): void => {
      on.after(store)
      node.wall += wall
      node.monotonic += monotonic
    }
    return { on, pass }
  }
  // biome-ignore format: a row a line
  const rows: readonly [what: string, store: number, wall: number, monotonic: number, trusted: boolean][] = [
    ['all go together', HOUR, HOUR, HOUR, true],
    ['drift within a minute', HOUR + MINUTE, HOUR, HOUR, true],
    ['the node slept: its monotonic clock stood', 8 * HOUR, 8 * HOUR, 0, true],
    ['the node’s time was set', HOUR, 5 * DAY, HOUR, true],
    ['the store jumped ahead', HOUR + MINUTE + 1, HOUR, HOUR, false],
    ['the store jumped far', 400 * DAY, SECOND, SECOND, false],
    ['the store fell back', -MINUTE - 1, 0, 0, false],
    ['the store stood', 0, HOUR, HOUR, false],
  ]
  for (const [what, store, wall, monotonic, trusted] of rows) {
    test(`${what}: ${trusted ? 'trusted' : 'suspect'}`, async () => {
      const { on, pass } = await watched()
      const kept = await on.kept()
      pass(store, wall, monotonic)
      assert.equal(on.engine.health().ready, trusted)
      if (trusted) return assert.equal((await on.reserve('r', 1)).outcome, 'allow')
      assert.equal(on.engine.health().problem, 'clock_suspect')
      await refused('clock_suspect', undefined, () => on.reserve('r', 1))
      await refused('clock_suspect', undefined, () => on.record('r', 1))
      await refused('clock_suspect', undefined, () => on.publish({ ...CREDITS_ONLY, patience: '1m' }))
      assert.deepEqual(await on.kept(), kept)
    })
  }
  test('it is trusted again when it returns', async () => {
    const { on, pass } = await watched()
    pass(DAY, SECOND, SECOND)
    await refused('clock_suspect', undefined, () => on.reserve('r', 1))
    pass(-DAY, SECOND, SECOND)
    assert.equal((await on.reserve('r', 1)).outcome, 'allow')
    assert.equal(on.engine.health().ready, true)
  })
  test('or when an operator accepts it', async () => {
    const { on, pass } = await watched()
    pass(DAY, SECOND, SECOND)
    await refused('clock_suspect', undefined, () => on.reserve('r', 1))
    on.engine.acceptClock()
    assert.equal((await on.reserve('r', 1)).decided_at, START + DAY)
  })
})
