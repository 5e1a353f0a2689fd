import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { SluiceError } from '../../errors.ts'
import type { Cell, Key } from '../../kernel/cells.ts'
import type { Step } from '../../store.ts'
import {
  account,
  type Bench,
  count,
  entry,
  failsWith,
  HOUR,
  look,
  put,
  readN,
  request,
  START,
  upTo,
  writeRequests,
} from './bench.ts'

export function serial({ place }: Bench): void {
  it('1. runs the steps of one account one after another, in the order of the calls', async () => {
    const { store } = await place()
    const results = await Promise.all(upTo(1000).map(() => store.transact('a', ['account'], count('a'))))
    assert.deepEqual(results, upTo(1000))
    assert.equal(await readN(store, 'a'), 1000)
  })

  it('1. keeps that order where accounts take turns and steps need more keys', async () => {
    const { store } = await place()
    const seen = new Map<string, number[]>()
    const calls = upTo(600).map((i) => {
      const id = `a${i % 7}`
      const step: Step<number> = (cells, env) => {
        if (i % 3 === 0 && !cells.has('grant:g')) return { need: ['grant:g'] }
        return count(id)(cells, env)
      }
      return store.transact(id, ['account'], step).then((n) => {
        seen.set(id, [...(seen.get(id) ?? []), n])
      })
    })
    await Promise.all(calls)
    for (const numbers of seen.values()) assert.deepEqual(numbers, upTo(numbers.length))
  })

  it('1. shows a step what was committed before it, in cells and entries', async () => {
    const { store } = await place()
    await store.transact('a', ['account'], count('a'))
    const seen = await store.transact(
      'a',
      ['account', 'entry:1', 'entry:2', 'subject:user=u'],
      look((cells) => [...cells]),
    )
    assert.deepEqual(seen, [
      ['account', account('a', 1)],
      ['entry:1', entry(1)],
      ['entry:2', null],
      ['subject:user=u', null],
    ])
  })

  it('1. removes a cell that a step sets to null, and takes it again', async () => {
    const { store } = await place()
    const key: Key = 'subject:user=ü 🙂'
    await store.transact('a', ['account'], put(['account', account('a')], [key, account('s', 1)]))
    await store.transact('a', [key], put([key, null]))
    assert.equal(
      await store.transact(
        'a',
        [key],
        look((cells) => cells.get(key)),
      ),
      null,
    )
    await store.transact('a', [], put([key, account('s', 2)]))
    assert.deepEqual(
      await store.transact(
        'a',
        [key],
        look((cells) => cells.get(key)),
      ),
      account('s', 2),
    )
  })
}

export function whole({ place }: Bench): void {
  it('2. a step that throws loses only its own', async () => {
    const { store } = await place()
    const calls = upTo(100).map((i) => {
      const step: Step<number> = (cells, env) => {
        if (i % 10 === 0) throw new Error(`step ${i}`)
        return count('a')(cells, env)
      }
      return store.transact('a', ['account'], step)
    })
    const settled = await Promise.allSettled(calls)
    const failed = settled.flatMap((one, i) =>
      one.status === 'rejected' ? [[i + 1, one.reason.message]] : [],
    )
    assert.deepEqual(
      failed,
      upTo(10).map((i) => [i * 10, `step ${i * 10}`]),
    )
    assert.equal(await readN(store, 'a'), 90)
  })

  it('2. what the store cannot take fails alone and leaves nothing behind', async () => {
    const { store } = await place()
    await store.transact('bad', ['account'], count('bad'))
    const taken: Step<number> = () => ({
      result: 0,
      writes: [{ key: 'account', cell: account('bad', 99) }],
      entries: [entry(1)],
    })
    const unfit: Step<number> = () => {
      const cell = { ...account('odd'), amount: 1n } as unknown as Cell
      return { result: 0, writes: [{ key: 'account', cell }], entries: [entry(1)] }
    }
    const nowhere: Step<number> = () => {
      return {
        result: 0,
        writes: [
          { key: 'subject:user=u', cell: account('u') },
          { key: 'account', cell: account('nan', 1, Number.NaN) },
        ],
        entries: [entry(1)],
      }
    }
    const good = upTo(50).map((i) => store.transact(`g${i % 5}`, ['account'], count(`g${i % 5}`)))
    const bad = [
      store.transact('bad', ['account'], taken),
      store.transact('odd', ['account'], unfit),
      store.transact('nan', ['account'], nowhere),
    ]
    const more = upTo(50).map((i) => store.transact(`g${i % 5}`, ['account'], count(`g${i % 5}`)))
    const after = store.transact('bad', ['account'], count('bad'))
    for (const one of await Promise.allSettled(bad)) assert.equal(one.status, 'rejected')
    await Promise.all([...good, ...more])
    assert.equal(await after, 2)
    for (const i of [0, 1, 2, 3, 4]) assert.equal(await readN(store, `g${i}`), 20)
    assert.equal(await readN(store, 'odd'), undefined)
    assert.equal(await readN(store, 'nan'), undefined)
    assert.deepEqual(await store.cells('nan', '', { limit: 9 }), [])
    assert.deepEqual(
      (await store.entries('bad', { limit: 10 })).map(({ seq }) => seq),
      [1, 2],
    )
  })
}

export function durable({ place }: Bench): void {
  it('3. what was answered is there after a restart', async (t) => {
    const { store, reopen } = await place()
    if (store.cannot.durable !== undefined || reopen === undefined) {
      assert.ok(store.cannot.durable, 'a store that cannot be reopened says why')
      t.diagnostic(`left out: ${store.cannot.durable}`)
      return
    }
    await Promise.all(upTo(300).map((i) => store.transact(`a${i % 9}`, ['account'], count(`a${i % 9}`))))
    await store.transact('a0', ['account'], put(['account', account('a0', 34, START + 5)]))
    await store.transact('a0', [], writeRequests(request('r1', START + 9), request('r2', null)))
    const before = await store.journal(undefined, 1000)
    const again = await reopen()
    assert.deepEqual(await again.journal(undefined, 1000), before)
    assert.equal(await readN(again, 'a1'), 34)
    assert.deepEqual(await again.holds('a0', 10), [request('r1', START + 9)])
    assert.deepEqual(await again.accountsOfRequest('r2', 10), ['a0'])
    assert.deepEqual(await again.transact('a1', ['account'], count('a1')), 35)
    const fresh = await again.transact(
      'new',
      ['account'],
      count('new', { key: 'request:r3', cell: request('r3', 7) }),
    )
    assert.equal(fresh, 1)
  })
}

export function repeatable({ place }: Bench): void {
  it('4. fetches what a step needs, round after round, and runs it again', async () => {
    const { store } = await place()
    await store.transact('a', [], put(['account', account('a', 7)], ['grant:g', account('g', 8)]))
    const rounds: Key[][] = []
    const step: Step<unknown> = (cells) => {
      rounds.push([...cells.keys()])
      if (!cells.has('request:r')) return { need: ['request:r', 'due:3'] }
      if (!cells.has('grant:g')) return { need: ['grant:g', 'account'] }
      return { result: cells.get('grant:g'), writes: [], entries: [] }
    }
    assert.deepEqual(await store.transact('a', ['account'], step), account('g', 8))
    assert.deepEqual(rounds, [
      ['account'],
      ['account', 'request:r', 'due:3'],
      ['account', 'request:r', 'due:3', 'grant:g'],
    ])
  })

  it('4. ends a step that asks for what it has', async () => {
    const { store } = await place()
    await assert.rejects(
      store.transact('a', ['account'], () => ({ need: ['account'] })),
      failsWith('internal'),
    )
  })
}

export function bounded({ place }: Bench): void {
  it('5. refuses sheddable work first, critical work last, and tells when to come back', async () => {
    const { store } = await place({ maxQueued: 100 })
    const tried = async (
      priority: 'sheddable' | 'standard' | 'critical',
      times: number,
    ): Promise<PromiseSettledResult<number>[]> =>
      Promise.allSettled(upTo(times).map(() => store.transact('a', ['account'], count('a'), priority)))
    const all = await Promise.all([tried('sheddable', 60), tried('standard', 60), tried('critical', 60)])
    const admitted = all.map((results) => results.filter((one) => one.status === 'fulfilled').length)
    assert.deepEqual(admitted, [50, 40, 10])
    for (const one of all.flat()) {
      if (one.status === 'fulfilled') continue
      assert.ok(failsWith('overloaded')(one.reason))
      assert.ok(((one.reason as SluiceError).detail.retryAfterMs ?? 0) > 0)
    }
    assert.equal(await store.transact('a', ['account'], count('a'), 'sheddable'), 101)
  })
}

export function oneClock({ place }: Bench): void {
  it('6. hands the store’s clock to its steps', async () => {
    const { store, clock } = await place()
    clock.now = clock.wall = START + 5
    assert.equal(
      await store.transact(
        'a',
        [],
        look((_, env) => env.now),
      ),
      START + 5,
    )
    assert.equal(await store.now(), START + 5)
  })

  it('6. writes nothing after a jump of its clock, until it returns', async () => {
    const { store, clock } = await place()
    await store.transact('a', ['account'], count('a'))
    for (const jump of [61_000, -61_000]) {
      clock.now += jump
      await assert.rejects(store.transact('a', ['account'], count('a')), failsWith('clock_suspect'))
      assert.deepEqual([store.health().ready, store.health().problem], [false, 'clock_suspect'])
      clock.now -= jump
      assert.equal(store.health().ready, true)
    }
    assert.equal(await store.transact('a', ['account'], count('a')), 2)
  })

  it('6. takes the clock as it stands when an operator accepts it', async () => {
    const { store, clock } = await place()
    await store.transact('a', ['account'], count('a'))
    clock.now += HOUR
    await assert.rejects(store.transact('a', ['account'], count('a')), failsWith('clock_suspect'))
    store.acceptClock()
    assert.equal(await store.transact('a', ['account'], count('a')), 2)
    clock.now += 30_000
    assert.equal(await store.transact('a', ['account'], count('a')), 3)
  })

  it('6. believes a clock that one of the node’s clocks agrees with', async () => {
    const { store, clock } = await place()
    await store.transact('a', ['account'], count('a'))
    clock.now += HOUR
    clock.wall += HOUR
    assert.equal(await store.transact('a', ['account'], count('a')), 2)
    clock.now += HOUR
    clock.monotonic += HOUR
    assert.equal(await store.transact('a', ['account'], count('a')), 3)
  })
}
