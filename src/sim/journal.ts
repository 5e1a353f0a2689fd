/**
 * What an account's own entries say, added up line by line: numbers without gaps, a charge for each use, cover that sums to
 * cost, grants that never pay more than they have, and balances that are the ones shown.
 */
import type * as wire from '../wire.ts'
import { expectSame, expectThat } from './disagreement.ts'
import { type Books, debtOf, grantLeft, sum } from './naive-books.ts'
import { micros } from './naive-prices.ts'

interface Body {
  readonly from?: unknown
  readonly to?: unknown
  readonly amount?: string
  readonly charge?: number
  readonly usage?: number
  readonly cost?: string
  readonly cover?: readonly wire.Share[]
  readonly corrects?: number
}

/** Amounts in entries may be negative, where they correct. */
const signed = (amount: string): bigint =>
  amount.startsWith('-') ? -micros(amount.slice(1)) : micros(amount)

export function checkJournal(books: Books, entries: readonly wire.EntryView[]): void {
  const balances = new Map<string, bigint>()
  const add = (account: string, amount: bigint): void =>
    void balances.set(account, (balances.get(account) ?? 0n) + amount)
  const uses = new Map<number, number>()
  let charged = 0n
  for (const [place, entry] of entries.entries()) {
    const body = entry.body as Body
    const what = `entry ${entry.seq}`
    expectSame(entry.seq, place + 1, 'number of an entry')
    if (entry.kind === 'usage') uses.set(entry.seq, 0)
    if (entry.kind === 'charge') charged += readCharge(entry, body, uses)
    if (entry.kind !== 'balance') continue
    const { from, to } = body as { from: string; to: string }
    const amount = signed(body.amount ?? '0')
    expectThat(amount > 0n && from !== to, `${what} moves ${amount} from ${from} to ${to}`)
    add(from, -amount)
    add(to, amount)
    for (const account of [from, to])
      if (account.startsWith('grant:'))
        expectThat((balances.get(account) ?? 0n) >= 0n, `${account} is below zero at ${what}`)
  }
  for (const [usage, charges] of uses) expectSame(charges, 1, `charges of use ${usage}`)
  expectSame(sum(balances.values()), 0n, 'the sum of all ledger accounts')
  expectSame(
    balances.get('charged') ?? 0n,
    charged,
    'what was charged to credits, overage, absorbed and debt',
  )
  expectSame(-(balances.get('debt') ?? 0n), debtOf(books), 'debt by the transfers')
  for (const grant of books.grants)
    if (grant.id !== undefined && (grant.charged.length > 0 || grantLeft(grant) > 0n))
      expectSame(
        balances.get(`grant:${grant.id}`) ?? 0n,
        grantLeft(grant),
        `grant ${grant.id} by the transfers`,
      )
}

/** Answers what the charge takes from ledger accounts: allowances are counted, not booked. */
function readCharge(entry: wire.EntryView, body: Body, uses: Map<number, number>): bigint {
  const cover = (body.cover ?? []).map(({ source, amount }) => ({ source, amount: signed(amount) }))
  expectSame(sum(cover.map(({ amount }) => amount)), signed(body.cost ?? '0'), `cover of charge ${entry.seq}`)
  const usage = body.usage ?? 0
  const known = uses.get(usage)
  expectThat(known !== undefined, `charge ${entry.seq} is of no use`)
  if (!('refund' in body)) uses.set(usage, known + 1)
  return sum(cover.filter(({ source }) => !source.startsWith('allowance:')).map(({ amount }) => amount))
}
