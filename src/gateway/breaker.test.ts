import assert from 'node:assert/strict'
import { beforeEach, describe, test } from 'node:test'
import { createSharedBreaker, type SharedBreaker } from './breaker.ts'

describe('the breaker of a shared upstream', () => {
  let at = 0
  let breaker: SharedBreaker
  beforeEach(() => {
    at = 1_000
    breaker = createSharedBreaker({
      ...{ failures: 10, ofOneAccount: 4, restMs: 1_000, maxRestMs: 30_000 },
      ...{ now: () => at, random: () => 1 },
    })
  })
  const isOpen = (account: string): boolean => breaker.admit(account) === undefined
  const fail = (account: string, times = 1, isReached = true): void => {
    for (let n = 0; n < times; n++) breaker.admit(account)?.failed(isReached)
  }

  test('is not opened by one account, however often its calls fail, nor by two', () => {
    fail('mallory', 1_000)
    assert.equal(isOpen('ada'), false)
    fail('mallet', 1_000)
    assert.equal(isOpen('ada'), false)
  })

  test('is opened by ten failures of three accounts, and then for all of them', () => {
    fail('a', 4)
    fail('b', 4)
    fail('c', 1)
    assert.equal(isOpen('d'), false)
    fail('c', 1)
    for (const account of ['a', 'b', 'c', 'd']) assert.equal(isOpen(account), true)
  })

  test('is opened by any ten calls that never reached it', () => {
    fail('a', 9, false)
    assert.equal(isOpen('b'), false)
    fail('a', 1, false)
    assert.equal(isOpen('b'), true)
  })

  test('forgets failures with the first call that goes well', () => {
    for (const account of ['a', 'b', 'c']) fail(account, 3)
    breaker.admit('d')?.succeeded()
    for (const account of ['a', 'b', 'c']) fail(account, 3)
    assert.equal(isOpen('d'), false)
    fail('d')
    assert.equal(isOpen('d'), true)
  })

  test('lets one find out after a rest, and all again when that goes well', () => {
    fail('a', 10, false)
    at += 999
    assert.equal(isOpen('b'), true)
    at += 1
    const trial = breaker.admit('b')
    assert.ok(trial !== undefined)
    assert.equal(isOpen('c'), true)
    trial.succeeded()
    assert.equal(isOpen('c'), false)
  })

  test('is not kept open by one account that is always first to find out', () => {
    fail('a', 10, false)
    at += 1_000
    fail('mallory')
    at += 2_000
    assert.equal(isOpen('mallory'), true)
    const trial = breaker.admit('ada')
    assert.ok(trial !== undefined)
    trial.succeeded()
    assert.equal(isOpen('mallory'), false)
  })

  test('nor by one that asks and leaves before the answer', () => {
    fail('a', 10, false)
    at += 1_000
    assert.equal(isOpen('mallory'), false)
    at += 1_000
    assert.equal(isOpen('mallory'), true)
    assert.equal(isOpen('ada'), false)
  })

  test('an account that is alone here finds out a moment later', () => {
    fail('a', 10, false)
    at += 1_000
    fail('a')
    at += 2_000
    assert.equal(isOpen('a'), true)
    at += 1_000
    assert.equal(isOpen('a'), false)
  })

  test('calls that were sent before it opened do not make its rest longer', () => {
    const late = Array.from({ length: 20 }, () => breaker.admit('late'))
    fail('a', 10, false)
    for (const pass of late) pass?.failed(true)
    at += 1_000
    assert.equal(isOpen('b'), false)
  })
})
