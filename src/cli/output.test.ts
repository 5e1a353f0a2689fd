import assert from 'node:assert/strict'
import { test } from 'node:test'
import { count, cuText, facts, instantText, share, table, wrapped } from './output.ts'

test('a table is as wide as its widest cells, numbers to the right, and ends no line in spaces', () => {
  const text = table(
    ['A', { title: 'B', align: 'right' }, 'C'],
    [
      ['long one', '5', ''],
      ['é', '12.5', null],
    ],
  )
  assert.equal(text, 'A            B  C\nlong one     5\né         12.5  –')
})
test('facts that are absent are left out', () => {
  assert.equal(
    facts([
      ['a', 1],
      ['long', undefined],
      ['bb', 'x'],
    ]),
    'a   1\nbb  x',
  )
})
test('numbers, amounts, shares and instants are written the same on every machine', () => {
  assert.deepEqual(
    [
      count(1234567),
      cuText(1_234_567_890),
      cuText(5, 6),
      share(1, 3),
      share(1, 0),
      instantText(0),
      instantText(null),
    ],
    ['1,234,567', '1,234.56', '0.000005', '33.3 %', '–', '1970-01-01 00:00:00Z', '–'],
  )
})
test('a line that is longer than the terminal is told in several, indented under its first', () => {
  const line = `  Allowance tasks: ${'word '.repeat(20)}end.`
  const lines = wrapped(line, 50).split('\n')
  assert.ok(lines.length > 1 && lines.every((one) => one.length <= 50))
  assert.ok(lines.slice(1).every((one) => /^ {6}\S/.test(one)))
  assert.equal(lines.map((one) => one.trim()).join(' '), line.trim())
  assert.equal(wrapped(line, 0), line)
})
