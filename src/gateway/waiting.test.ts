import assert from 'node:assert/strict'
import { describe, test } from 'node:test'
import { until } from '../../test/gateway.ts'
import { createWaiting, type Standing, type Waiting } from './waiting.ts'

/** What may be had, a piece for each who asks; who asks in vain is told to wait so long. */
function counter(waitMs = 60_000) {
  const asked: string[] = []
  const got: string[] = []
  return {
    asked,
    got,
    left: 0,
    one(name: string, more: Partial<Standing<number | undefined>> = {}): Standing<number | undefined> {
      return {
        account: 'a',
        row: 'r',
        waitMs: (wait) => wait,
        mostMs: 120_000,
        signal: new AbortController().signal,
        ask: async () => {
          asked.push(name)
          await new Promise(setImmediate)
          if (this.left === 0) return waitMs
          this.left--
          got.push(name)
          return undefined
        },
        ...more,
      }
    },
  }
}
const stands = (waiting: Waiting, size: number) =>
  until(
    () => waiting.size,
    (now) => now === size,
  )
/** Timers that keep the process alive. */
const timers = () => process.getActiveResourcesInfo().filter((name) => name === 'Timeout').length

describe('waiting', () => {
  test('who comes later stands behind those who wait, though it could be served at once', async () => {
    const waiting = createWaiting({ perAccount: 100, inAll: 100 })
    const counted = counter()
    const names = ['first', 'second', 'third']
    const all: Promise<unknown>[] = []
    for (const [place, name] of names.entries()) {
      all.push(waiting.stand(counted.one(name)))
      await stands(waiting, place + 1)
    }
    counted.left = 4
    all.push(waiting.stand(counted.one('late')))
    await stands(waiting, 4)
    assert.deepEqual(counted.got, [], 'nobody is asked for before the first has been')
    waiting.wake('a')
    await Promise.all(all)
    assert.deepEqual(counted.got, [...names, 'late'])
    assert.equal(waiting.size, 0)
    // Nobody stands any more: who comes asks at once.
    counted.left = 1
    await waiting.stand(counted.one('alone'))
    assert.equal(counted.got.at(-1), 'alone')
  })

  test('rows do not wait for each other', async () => {
    const waiting = createWaiting({ perAccount: 100, inAll: 100 })
    const counted = counter()
    const leave = new AbortController()
    const waits = waiting.stand(counted.one('waits', { signal: leave.signal }))
    await stands(waiting, 1)
    counted.left = 1
    assert.equal(await waiting.stand(counted.one('other', { row: 'other' })), undefined)
    leave.abort(new Error('gone'))
    await assert.rejects(waits, /gone/)
  })

  test('what is given back while somebody asks is not missed', async () => {
    const waiting = createWaiting({ perAccount: 100, inAll: 100 })
    let left = 0
    let asks = 0
    const answer = await waiting.stand({
      ...{ account: 'a', row: 'r', mostMs: 1e9, signal: new AbortController().signal },
      waitMs: (wait: number | undefined) => wait,
      async ask() {
        asks++
        if (left > 0) return undefined
        if (asks === 1) {
          // Wakes it for its second question, during which what it waits for is given back.
          setImmediate(() => waiting.wake('a'))
          return 5e8
        }
        left = 1
        waiting.wake('a')
        return 5e8
      },
    })
    assert.equal(answer, undefined)
    assert.equal(asks, 3)
  })

  test('only so many may wait, of one account and in all', async () => {
    const waiting = createWaiting({ perAccount: 2, inAll: 3 })
    const counted = counter(70)
    const leave = new AbortController()
    const all: Promise<unknown>[] = []
    const come = (account: string, row: string) => {
      const one = counted.one(row, { account, row, signal: leave.signal, mostMs: 1e9 })
      return waiting.stand({ ...one, ask: async () => 5e8 })
    }
    for (const row of ['1', '2']) all.push(come('a', row))
    await stands(waiting, 2)
    assert.equal(await come('a', '3'), 5e8, 'no room for a third of one account')
    assert.equal(await come('a', '1'), 5e8, 'nor behind another of it')
    all.push(come('b', '4'))
    await stands(waiting, 3)
    assert.equal(await come('c', '5'), 5e8, 'nor for a fourth of all')
    leave.abort(new Error('gone'))
    for (const one of all) await assert.rejects(one, /gone/)
    assert.equal(waiting.size, 0)
  })

  test('who is told to wait for longer than may be is not kept', async () => {
    const waiting = createWaiting({ perAccount: 100, inAll: 100 })
    const leave = new AbortController()
    const waits = waiting.stand(counter(1_000_000).one('waits', { mostMs: 1e9, signal: leave.signal }))
    await stands(waiting, 1)
    const { asked, one } = counter()
    assert.equal(await waiting.stand(counter(70_000).one('alone', { row: 'x', mostMs: 60_000 })), 70_000)
    assert.equal(await waiting.stand(one('behind', { mostMs: 500_000 })), 1_000_000, 'as the row was told')
    assert.deepEqual(asked, [])
    leave.abort(new Error('gone'))
    await assert.rejects(waits, /gone/)
  })

  test('who has waited as long as may be is answered what was answered last', async () => {
    const waiting = createWaiting({ perAccount: 100, inAll: 100 })
    const counted = counter(30)
    const answers = await Promise.all(
      ['first', 'second', 'third'].map((name) => waiting.stand(counted.one(name, { mostMs: 100 }))),
    )
    assert.deepEqual(answers, [30, 30, 30])
    assert.equal(waiting.size, 0)
  })

  test('who leaves, at the front or in the row, lets the next come on and leaves no timer', async () => {
    const waiting = createWaiting({ perAccount: 100, inAll: 100 })
    const counted = counter()
    const before = timers()
    const ones = ['a', 'b', 'c', 'd'].map((name) => ({ name, leave: new AbortController() }))
    const all: Promise<unknown>[] = []
    for (const { name, leave } of ones) {
      all.push(waiting.stand(counted.one(name, { signal: leave.signal })))
      await stands(waiting, all.length)
    }
    ones[2]?.leave.abort(new Error('gone'))
    ones[0]?.leave.abort(new Error('gone'))
    await assert.rejects(all[0] as Promise<unknown>, /gone/)
    await assert.rejects(all[2] as Promise<unknown>, /gone/)
    counted.left = 2
    waiting.wake('a')
    await Promise.all([all[1], all[3]])
    assert.deepEqual(counted.got, ['b', 'd'])
    assert.equal(waiting.size, 0)
    assert.equal(timers(), before)
  })

  test('whose question fails leaves the row as well', async () => {
    const waiting = createWaiting({ perAccount: 100, inAll: 100 })
    let asks = 0
    const fails = waiting.stand({
      ...counter().one('fails'),
      async ask() {
        if (asks++ > 0) throw new Error('broken')
        return 20
      },
    })
    await assert.rejects(fails, /broken/)
    assert.equal(waiting.size, 0)
    const counted = counter()
    counted.left = 1
    assert.equal(await waiting.stand(counted.one('next')), undefined)
  })
})
