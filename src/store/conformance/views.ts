import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { Cell, Cells, DueHolds } from '../../kernel/cells.ts'
import type { StoredEntry } from '../../ledger/entries.ts'
import type { Step, Store } from '../../store.ts'
import type { Millis } from '../../units.ts'
import {
  account,
  type Bench,
  count,
  entry,
  failsWith,
  HOUR,
  look,
  put,
  request,
  START,
  upTo,
  writeRequests,
} from './bench.ts'

export const dueOf = (cells: Cells, n: number): [string[], Millis | null] => {
  const { requests, nextAt } = cells.get(`due:${n}`) as DueHolds
  return [requests.map(({ id }) => id), nextAt]
}

export function views(bench: Bench): void {
  const { place } = bench

  it('tells the holds past their end, and when the next one ends', async () => {
    const { store } = await place()
    const holds = [
      request('r3', START - 1),
      request('r1', START - 3),
      request('r2', START),
      request('r4', START + 9),
    ]
    await store.transact('a', [], writeRequests(...holds, request('closed', null)))
    await store.transact('b', [], writeRequests(request('other', START - 2)))
    const seen = await store.transact(
      'a',
      ['due:1', 'due:2', 'due:3', 'due:9'],
      look((cells) => [1, 2, 3, 9].map((n) => dueOf(cells, n))),
    )
    assert.deepEqual(seen, [
      [['r1'], START - 1],
      [['r1', 'r3'], START],
      [['r1', 'r3', 'r2'], START + 9],
      [['r1', 'r3', 'r2'], START + 9],
    ])
  })

  it('tells them as the steps before it have left them, in the same commit', async () => {
    const { store } = await place()
    await store.transact('a', [], writeRequests(...upTo(9).map((i) => request(`r${i}`, START - 100 + i))))
    const due = (n: number) =>
      store.transact(
        'a',
        [`due:${n}`],
        look((cells) => dueOf(cells, n)),
      )
    const all = await Promise.all([
      due(2),
      store.transact(
        'a',
        [],
        writeRequests(request('r1', null), request('r2', START + 50), request('r0', START - 200)),
      ),
      due(2),
      store.transact('a', [], put(['request:r3', null], ['request:r0', request('r0', null)])),
      due(2),
      store.transact(
        'a',
        [],
        writeRequests(...upTo(9).map((i) => request(`r${i}`, i === 9 ? START + 60 : null))),
      ),
      due(2),
    ])
    assert.deepEqual(
      [all[0], all[2], all[4], all[6]],
      [
        [['r1', 'r2'], START - 97],
        [['r0', 'r3'], START - 96],
        [['r4', 'r5'], START - 94],
        [[], START + 60],
      ],
    )
  })

  it('shows entries that the same commit adds, without a part that it erases', async () => {
    const { store } = await place()
    const add =
      (seq: number): Step<null> =>
      () => ({ result: null, writes: [], entries: [entry(seq, 'usage', `p${seq}`)] })
    const parts = (cells: Cells) =>
      [1, 2].map((n) => (cells.get(`entry:${n}`) as StoredEntry | null)?.private)
    const seen = (): Promise<unknown> => store.transact('a', ['entry:1', 'entry:2'], look(parts))
    const erase =
      (...numbers: number[]): Step<null> =>
      () => ({ result: null, writes: [], entries: [], erase: numbers })
    await store.transact('a', [], add(1))
    const all = await Promise.all([
      store.transact('a', [], add(2)),
      seen(),
      store.transact('a', [], erase(1)),
      seen(),
      store.transact('a', [], erase(2)),
      seen(),
    ])
    assert.deepEqual(
      [all[1], all[3], all[5]],
      [
        ['p1', 'p2'],
        [null, 'p2'],
        [null, null],
      ],
    )
    assert.deepEqual(await seen(), [null, null])
    const stored = await store.entries('a', { limit: 9 })
    assert.deepEqual(stored, [entry(1), entry(2)])
    assert.deepEqual(
      (await store.journal(undefined, 9)).map((row) => row.entry),
      stored,
    )
  })

  it('tells which accounts may have a hold past its end, the longest past first', async () => {
    const { store } = await place()
    const ends = { a: START - 5, b: START + 5, c: START - 9, d: null, e: START }
    await Promise.all(
      Object.entries(ends).map(([id, dueAt]) =>
        store.transact(id, [], put(['account', account(id, 0, dueAt)])),
      ),
    )
    const due = [
      { account: 'c', dueAt: START - 9 },
      { account: 'a', dueAt: START - 5 },
      { account: 'e', dueAt: START },
    ]
    assert.deepEqual(await store.due(10), due)
    assert.deepEqual(await store.due(2), due.slice(0, 2))
    await store.transact('c', [], put(['account', account('c')]))
    assert.deepEqual(await store.due(10), due.slice(1))
  })
}

export const system = (activePolicy: number): Cell =>
  ({ v: 1, id: '@system', lastAt: START, activePolicy, dueAt: null }) as unknown as Cell
export const policy = (version: number, text: string): Cell => ({ v: 1, version, text }) as unknown as Cell

export function policies({ place }: Bench): void {
  const publish = (store: Store, version: number, text: string) =>
    store.transact(
      '@system',
      [],
      put(['account', system(version)], [`policy:${version}`, policy(version, text)]),
    )
  const active = (store: Store) =>
    store.transact(
      'a',
      [],
      look((_, env) => [env.policy.active.version, env.policy.active.defaultPlan]),
    )

  it('hands the active policy to each step, compiled once a version', async () => {
    const { store, compiled } = await place()
    assert.deepEqual(await active(store), [0, undefined])
    await publish(store, 1, 'one')
    assert.deepEqual(await active(store), [1, 'one'])
    await publish(store, 2, 'two')
    const seen = await Promise.all(upTo(50).map(() => active(store)))
    assert.deepEqual(seen.at(-1), [2, 'two'])
    const past = store.transact(
      'b',
      [],
      look((_, env) => [1, 2, 3].map((n) => env.policy.at(n)?.defaultPlan)),
    )
    assert.deepEqual(await past, ['one', 'two', undefined])
    assert.deepEqual(compiled, [1, 2])
  })

  it('lets a policy be replaced that it cannot compile', async () => {
    const { store } = await place()
    await publish(store, 1, 'broken')
    await assert.rejects(active(store), failsWith('policy_invalid'))
    await publish(store, 2, 'two')
    assert.deepEqual(await active(store), [2, 'two'])
  })
}

export function generations({ place }: Bench): void {
  it('drops closed requests in bulk, never an open one nor one that is protected', async () => {
    const { store, clock } = await place()
    const horizon = 10 * HOUR
    const known = async (id: string): Promise<boolean> => {
      const cell = await store.transact(
        'a',
        [`request:${id}`],
        look((cells) => cells.get(`request:${id}`)),
      )
      assert.equal((await store.accountsOfRequest(id, 1)).length, cell === null ? 0 : 1)
      return cell !== null
    }
    const pass = async (): Promise<void> => {
      clock.now += horizon + 1
      clock.wall = clock.now
      await store.dropRequestsBefore(clock.now - horizon)
    }
    await store.transact('a', [], writeRequests(request('old', null), request('open', START + 99 * HOUR)))
    await store.dropRequestsBefore(clock.now - horizon)
    assert.equal(await known('old'), true)
    await pass()
    const at = clock.now
    await store.transact(
      'a',
      [],
      writeRequests(request('young', null, at), request('held', at + 99 * HOUR, at)),
    )
    await store.dropRequestsBefore(clock.now - horizon)
    assert.deepEqual([await known('young'), await known('open')], [true, true])
    await pass()
    assert.deepEqual([await known('old'), await known('open'), await known('held')], [false, true, true])
    // What has moved on is still the same request.
    await store.transact('a', ['request:open'], writeRequests(request('open', null)))
    await store.transact('a', [], writeRequests(request('new', clock.now + HOUR, clock.now)))
    assert.deepEqual(
      (await store.holds('a', 9)).map(({ id }) => id),
      ['new', 'held'],
    )
    await pass()
    await pass()
    assert.deepEqual([await known('young'), await known('open'), await known('held')], [false, false, true])
  })

  it('drops while others write', async () => {
    const { store, clock } = await place()
    const writing = upTo(500).map((i) => {
      const id = `a${i % 5}`
      return store.transact(
        id,
        ['account', `request:r${i}`],
        count(id, { key: `request:r${i}`, cell: request(`r${i}`, START + i) }),
      )
    })
    const drops = upTo(4).map((i) => store.dropRequestsBefore(clock.now + i))
    await Promise.all([...writing, ...drops])
    for (let a = 0; a < 5; a++) assert.equal((await store.holds(`a${a}`, 999)).length, 100)
  })
}

export function closing({ place }: Bench): void {
  it('finishes what was accepted and refuses what comes after', async () => {
    const { store } = await place()
    const accepted = upTo(500).map((i) => store.transact(`a${i % 3}`, ['account'], count(`a${i % 3}`)))
    const closed = store.close()
    const late = store.transact('a0', ['account'], count('a0'))
    await assert.rejects(late, failsWith('closing'))
    assert.equal((await Promise.all(accepted)).length, 500)
    await closed
    await assert.rejects(store.transact('a0', ['account'], count('a0')), failsWith('closing'))
  })

  it('answers health with what waits', async () => {
    const { store } = await place()
    const waiting = upTo(20).map(() => store.transact('a', ['account'], count('a')))
    const { ready, queued } = store.health()
    assert.deepEqual([ready, queued], [true, 20])
    await Promise.all(waiting)
    assert.equal(store.health().queued, 0)
  })
}
