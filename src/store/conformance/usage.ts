import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { Store, UsageChange, UsageTotal } from '../../store.ts'
import { account, type Bench, HOUR, put, START, upTo } from './bench.ts'

const QUARTER = HOUR / 4
const ALL = [QUARTER, HOUR].map((spanMs) => ({ spanMs, from: 0, to: 2 * START }))

const total = (spanMs: number, startAt: number, group: string, requests = 1): UsageTotal => ({
  spanMs,
  startAt,
  group,
  requests,
  charged: -requests * 1_000_000,
  quantities: { 'naïve 🙂': requests, ['__proto__']: 1 },
  sources: { credits: -requests },
  firstAt: startAt,
  lastAt: startAt + 1,
  firstSeq: 1,
  lastSeq: Number.MAX_SAFE_INTEGER,
})
const change = (through: number, totals: readonly UsageTotal[] = []): UsageChange => ({
  through,
  earliestAt: START,
  latestAt: START + HOUR,
  totals,
  dropped: [],
})
const inOrder = (totals: readonly UsageTotal[]): UsageTotal[] =>
  totals.toSorted((a, b) => a.spanMs - b.spanMs || a.startAt - b.startAt || (a.group < b.group ? -1 : 1))
const keptIn = async (store: Store, name = 'a') => inOrder((await store.usage(name, ALL)).totals)

export function usage({ place }: Bench): void {
  it('keeps totals of usage, and answers those that begin in the ranges asked for', async () => {
    const { store, reopen } = await place()
    for (const name of ['a', 'b']) await store.transact(name, [], put(['account', account(name)]))
    const none = { through: 0, revision: 0, earliestAt: null, latestAt: null, totals: [] }
    assert.deepEqual(await store.usage('a', ALL), none)
    assert.deepEqual(await store.usage('nobody', ALL), none)
    // A group may be longer than a key of an index.
    const long = JSON.stringify({ endpoint: 'é'.repeat(5_000) })
    const totals = [
      total(QUARTER, START, '{}'),
      total(QUARTER, START, long),
      total(QUARTER, START + QUARTER, '{}'),
      total(HOUR, START, '{}'),
      total(HOUR, START + HOUR, '{}'),
    ]
    assert.equal(await store.keepUsage('a', 0, change(7, totals)), true)
    assert.equal(await store.keepUsage('b', 0, { ...change(1), earliestAt: null, latestAt: null }), true)
    const state = { through: 7, revision: 1, earliestAt: START, latestAt: START + HOUR }
    const check = async (from: Store): Promise<void> => {
      assert.deepEqual(await from.usage('a', []), { ...state, totals: [] })
      assert.deepEqual(await keptIn(from), inOrder(totals))
      const some = await from.usage('a', [
        { spanMs: QUARTER, from: START + 1, to: START + QUARTER + 1 },
        { spanMs: HOUR, from: START, to: START + HOUR },
      ])
      assert.deepEqual(inOrder(some.totals), inOrder([totals[2] as UsageTotal, totals[3] as UsageTotal]))
      assert.deepEqual(await from.usage('b', ALL), { ...none, through: 1, revision: 1 })
    }
    await check(store)
    if (reopen !== undefined) await check(await reopen())
  })

  it('replaces and drops totals, and changes nothing where the revision is another', async () => {
    const { store } = await place()
    await store.transact('a', [], put(['account', account('a')]))
    const [one, two, three] = ['1', '2', '3'].map((group) => total(HOUR, START, group)) as [
      UsageTotal,
      UsageTotal,
      UsageTotal,
    ]
    assert.equal(await store.keepUsage('a', 1, change(3, [one])), false)
    assert.equal(await store.keepUsage('a', 0, change(3, [one, two])), true)
    assert.equal(await store.keepUsage('a', 0, change(9, [three])), false)
    assert.deepEqual(await keptIn(store), [one, two])
    const changed = total(HOUR, START, '1', 5)
    assert.equal(await store.keepUsage('a', 1, { ...change(4, [changed, three]), dropped: [two] }), true)
    assert.equal(await store.keepUsage('a', 1, { ...change(5), dropped: [one] }), false)
    const { through, revision } = await store.usage('a', [])
    assert.deepEqual([through, revision, await keptIn(store)], [4, 2, [changed, three]])
  })

  it('lets one of many who add at once be first, each time', async () => {
    const { store } = await place()
    await store.transact('a', [], put(['account', account('a')]))
    const add = async (): Promise<number> => {
      for (let lost = 0; ; lost++) {
        const { revision, through, totals } = await store.usage('a', ALL)
        const requests = (totals[0]?.requests ?? 0) + 1
        const next = change(through + 1, [total(HOUR, START, '{}', requests)])
        if (await store.keepUsage('a', revision, next)) return lost
      }
    }
    const lost = await Promise.all(upTo(20).map(add))
    assert.ok(Math.max(...lost) > 0, 'they were at it at once')
    const { through, revision, totals } = await store.usage('a', ALL)
    assert.deepEqual([through, revision, totals[0]?.requests], [20, 20, 20])
  })
}
