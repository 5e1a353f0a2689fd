import { add, type Micros } from '../units.ts'

/**
 * Balances of an account's ledger accounts other than its grants, which carry their own `remaining`.
 * Every movement is a transfer between two, so that the sum of all, grants included, is always zero:
 * `issued` and `overage` run negative, what was `charged`, `expired`, `revoked` positive.
 */
export interface Books {
  issued: Micros
  charged: Micros
  expired: Micros
  revoked: Micros
  overage: Micros
  absorbed: Micros
  debt: Micros
}
export type LedgerAccount = keyof Books | `grant:${string}`

export const emptyBooks = (): Books => ({
  issued: 0,
  charged: 0,
  expired: 0,
  revoked: 0,
  overage: 0,
  absorbed: 0,
  debt: 0,
})

/** Moves an amount between two ledger accounts; a grant's side is carried by the grant itself. */
export function post(books: Books, from: LedgerAccount, to: LedgerAccount, amount: Micros): void {
  if (!isGrant(from)) books[from] = add(books[from], -amount)
  if (!isGrant(to)) books[to] = add(books[to], amount)
}

export function isGrant(account: LedgerAccount): account is `grant:${string}` {
  return account.startsWith('grant:')
}

/** What the customer owes beyond what could be covered: the debt account runs negative by it. */
export const owed = (books: Books): Micros => 0 - books.debt
