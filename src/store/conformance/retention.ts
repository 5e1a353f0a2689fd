import assert from 'node:assert/strict'
import { it } from 'node:test'
import { account, type Bench, entry, failsWith, put, START } from './bench.ts'

const DAY = 86_400_000
/** The beginning of the month after the one of the clock. */
const next = (at: number): number => {
  const date = new Date(at)
  return Date.UTC(date.getUTCFullYear(), date.getUTCMonth() + 1)
}

export function retention({ place }: Bench): void {
  it('lets go of entries of whole months, but those of @system, or says why it cannot', async (t) => {
    const { store, clock } = await place()
    const add = (name: string, ...seqs: number[]) =>
      store.transact(name, [], () => ({ result: 0, writes: [], entries: seqs.map((seq) => entry(seq)) }))
    const edge = next(START)
    if (store.cannot.retain !== undefined) {
      await assert.rejects(store.lastBefore(edge, { limit: 9 }), failsWith('invalid'))
      await assert.rejects(store.dropEntriesBefore(edge), failsWith('invalid'))
      t.diagnostic(`left out: ${store.cannot.retain}`)
      return
    }
    await store.transact('a', [], put(['account', account('a')]))
    for (const name of ['@system', 'a', 'b', 'c']) await add(name, 1, 2)
    clock.now = clock.wall = edge + DAY
    clock.monotonic = edge + DAY - START
    await store.dropRequestsBefore(START)
    for (const name of ['@system', 'a', 'd']) await add(name, 3)
    const first = await store.lastBefore(edge, { limit: 2 })
    assert.deepEqual(first, [
      { account: 'a', seq: 2 },
      { account: 'b', seq: 2 },
    ])
    assert.deepEqual(await store.lastBefore(edge, { limit: 2, after: 'b' }), [{ account: 'c', seq: 2 }])
    assert.deepEqual(await store.lastBefore(START - 60 * DAY, { limit: 2 }), [])
    const { months } = await store.dropEntriesBefore(edge)
    assert.equal(months.length, 1)
    assert.deepEqual(await store.lastBefore(edge, { limit: 9 }), [])
    const numbers = async (name: string) => (await store.entries(name, { limit: 9 })).map(({ seq }) => seq)
    assert.deepEqual(
      [await numbers('@system'), await numbers('a'), await numbers('b'), await numbers('d')],
      [[1, 2, 3], [3], [], [3]],
    )
    assert.equal((await store.journal(undefined, 9)).length, 5)
    assert.deepEqual((await store.dropEntriesBefore(edge)).months, [])
  })
}
