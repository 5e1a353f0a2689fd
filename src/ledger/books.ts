import { add, type Micros } from '../units.ts'

/**
 * Balances of an account's ledger accounts other than its grants, which carry their own `remaining`.
 * Every movement is a transfer between two, so that the sum of all, grants included, is always zero:
 * `issued` and `overage` run negative, what was `charged`, `expired`, `revoked` positive.
 */
export interface Books {
  readonly issued: Micros
  readonly charged: Micros
  readonly expired: Micros
  readonly revoked: Micros
  readonly overage: Micros
  readonly absorbed: Micros
  readonly debt: Micros
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

/** The books after an amount has moved between two ledger accounts; a grant's side is carried by the grant itself. */
export function posted(books: Books, from: LedgerAccount, to: LedgerAccount, amount: Micros): Books {
  const next = { ...books }
  if (!isGrant(from)) next[from] = add(next[from], -amount)
  if (!isGrant(to)) next[to] = add(next[to], amount)
  return next
}

export function isGrant(account: LedgerAccount): account is `grant:${string}` {
  return account.startsWith('grant:')
}

/** What the customer owes beyond what could be covered: the debt account runs negative by it. */
export const owed = (books: Books): Micros => 0 - books.debt
