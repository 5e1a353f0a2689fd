import assert from 'node:assert/strict'
import { it } from 'node:test'
import type { AccountCell, Counters } from './cells.ts'
import { reuseAccount, reuseCounters } from './reuse.ts'

const counters = (): Counters => ({
  windows: { a: { startAt: 0, endAt: 1, used: 0, held: 0 } },
  rates: {},
  concurrency: { c: [1, 2] },
})
const copyOf = (from: Counters): Counters => ({
  windows: { ...from.windows },
  rates: { ...from.rates },
  concurrency: { ...from.concurrency },
})

it('counters that did not change are the ones they were copied from', () => {
  const from = counters()
  assert.equal(reuseCounters(copyOf(from), from), from)
})

it('counters that changed keep what changed, and only that is new', () => {
  const from = counters()
  const copy = copyOf(from)
  copy.windows.a = { startAt: 0, endAt: 1, used: 5, held: 0 }
  const used = reuseCounters(copy, from)
  assert.equal(used, copy)
  assert.equal(used.windows.a?.used, 5)
  assert.equal(from.windows.a?.used, 0)
  assert.equal(used.concurrency, from.concurrency)
})

it('what was added or removed counts as changed', () => {
  const from = counters()
  const more = copyOf(from)
  more.concurrency.d = [3]
  assert.deepEqual(Object.keys(reuseCounters(more, from).concurrency), ['c', 'd'])
  const less = copyOf(from)
  delete less.windows.a
  assert.deepEqual(reuseCounters(less, from).windows, {})
})

it('an account shares what one grant did not change with the cell it was copied from', () => {
  const grant = (id: string) => ({ id, held: 0, remaining: 5 })
  const from = {
    counters: counters(),
    grants: [grant('a'), grant('b')],
    recurrences: { r: { grantId: 'a', nextAt: null } },
    books: { issued: -10, charged: 0 },
    subjectCounts: {},
  } as unknown as AccountCell
  const copy = {
    ...from,
    counters: copyOf(from.counters),
    grants: from.grants.map((one) => ({ ...one })),
    books: { ...from.books },
  }
  const second = copy.grants[1] as AccountCell['grants'][number]
  second.held = 3
  reuseAccount(copy, from)
  assert.equal(copy.books, from.books)
  assert.equal(copy.counters, from.counters)
  assert.notEqual(copy.grants, from.grants)
  assert.equal(copy.grants[0], from.grants[0])
  assert.equal(copy.grants[1]?.held, 3)
  assert.equal(from.grants[1]?.held, 0)
})
