import assert from 'node:assert/strict'
import { test } from 'node:test'
import type { Cell } from '../../kernel/cells.ts'
import { createParsed } from './parsed.ts'

const cell = (n: number): Cell => ({ v: 1, n }) as unknown as Cell
const text = (n: number): string => JSON.stringify(cell(n))

test('a text that is known is not parsed again, and one that another node wrote is', () => {
  const parsed = createParsed(10)
  const kept = cell(1)
  parsed.keep('a', 'account', text(1), kept)
  assert.equal(parsed.read('a', 'account', text(1)), kept)
  assert.deepEqual(parsed.read('a', 'account', text(2)), cell(2))
  assert.deepEqual(parsed.read('b', 'account', text(1)), cell(1))
  assert.notEqual(parsed.read('b', 'account', text(1)), kept)
})

test('it forgets what nobody asked for, and keeps what is asked for', () => {
  const parsed = createParsed(10)
  const [often, once] = [cell(1), cell(2)]
  parsed.keep('often', 'account', text(1), often)
  parsed.keep('once', 'account', text(2), once)
  for (let n = 0; n < 100; n++) {
    parsed.read(`other ${n}`, 'account', text(n))
    if (n % 3 === 0) assert.equal(parsed.read('often', 'account', text(1)), often)
  }
  assert.notEqual(parsed.read('once', 'account', text(2)), once)
})
