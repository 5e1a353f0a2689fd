import assert from 'node:assert/strict'
import { test } from 'node:test'
import { emptyBooks, owed, posted } from './books.ts'

test('nothing owed is zero, and not a negative one', () => {
  assert.ok(Object.is(owed(emptyBooks()), 0))
})

test('a transfer moves an amount between two ledger accounts, and their sum stays zero', () => {
  const books = posted(posted(emptyBooks(), 'debt', 'charged', 7), 'issued', 'expired', 5)
  assert.deepEqual(books, { ...emptyBooks(), debt: -7, charged: 7, issued: -5, expired: 5 })
  assert.equal(owed(books), 7)
  assert.equal(
    Object.values(books).reduce((sum, amount) => sum + amount, 0),
    0,
  )
})

test('a grant’s side of a transfer is the grant’s own', () => {
  assert.deepEqual(posted(emptyBooks(), 'grant:g', 'charged', 3), { ...emptyBooks(), charged: 3 })
})
