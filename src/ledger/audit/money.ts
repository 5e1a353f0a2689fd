/** Credits: grants as they are issued, and every transfer between two ledger accounts. */
import { add } from '../../units.ts'
import { type Books, isGrant, type LedgerAccount } from '../books.ts'
import type { BalanceEntry, BalanceReason, ChangeEntry, ChargeEntry } from '../entries.ts'
import { cu, type Tell } from './findings.ts'
import { type GrantTrace, type Journal, remainingOf } from './journal.ts'

type Side = keyof Books | 'grant'
/** Which movements a reason can have. */
const WAYS: Readonly<Record<BalanceReason, readonly (readonly [from: Side, to: Side])[]>> = {
  issued: [['issued', 'grant']],
  charge: [
    ['grant', 'charged'],
    ['overage', 'charged'],
    ['absorbed', 'charged'],
    ['debt', 'charged'],
  ],
  refund: [
    ['charged', 'grant'],
    ['charged', 'overage'],
    ['charged', 'absorbed'],
    ['charged', 'debt'],
  ],
  expired: [['grant', 'expired']],
  revoked: [['grant', 'revoked']],
  rollover: [['grant', 'grant']],
  repaid: [['grant', 'debt']],
  summary: [
    ['issued', 'expired'],
    ['issued', 'debt'],
  ],
}

/** Which sign an account's balance has at every entry: what was charged never falls below zero, debt never rises above. */
const NEVER_ABOVE_ZERO: readonly (keyof Books)[] = ['issued', 'overage', 'absorbed', 'debt']

/** A charge whose transfers are being read: what each source still has to give, or to get back. */
export interface OpenCharge {
  readonly seq: number
  readonly request: string
  readonly due: Map<string, number>
  readonly back: boolean
}

export function openCharge(charge: ChargeEntry & { readonly request: string }): OpenCharge {
  const due = new Map<string, number>()
  for (const [source, amount] of charge.cover) {
    if (!source.startsWith('allowance:')) due.set(source, (due.get(source) ?? 0) + Math.abs(amount))
  }
  return { seq: charge.seq, request: charge.request, due, back: charge.cost < 0 }
}

/** The transfers of a charge have all been read: what they did not move is missing. */
export function closeCharge({ seq, request, due, back }: OpenCharge, tell: Tell): void {
  for (const [source, amount] of due) {
    if (amount === 0) continue
    const says = back ? `gives ${cu(amount)} back to ${source}` : `takes ${cu(amount)} from ${source}`
    tell('transfer', `the charge ${says}, and no transfer moves them`, { seq, request, amount })
  }
}

export function readGrant(journal: Journal, entry: ChangeEntry, tell: Tell): void {
  const { id, kind, amount, priority, starts_at, expires_at, features } = entry.detail as {
    id: string
    kind: string
    amount: number
    priority: number
    starts_at: number
    expires_at: number | null
    features?: readonly string[]
  }
  if (journal.grants.has(id)) {
    tell('grant', `grant ${id} over ${cu(amount)} is issued a second time`, { seq: entry.seq, amount })
    return
  }
  journal.grants.set(id, {
    seq: entry.seq,
    kind,
    amount,
    priority,
    startsAt: starts_at,
    expiresAt: expires_at,
    features: features ?? null,
    funded: 0,
    refunded: 0,
    charged: 0,
    expired: 0,
    revoked: 0,
    repaid: 0,
    repaidAtOnce: 0,
    rolled: 0,
    held: 0,
    revokedSeq: null,
  })
}

export function readRevocation(journal: Journal, entry: ChangeEntry, tell: Tell): void {
  const id = entry.detail.id as string
  const grant = journal.grants.get(id)
  if (grant === undefined) tell('grant', `grant ${id} is revoked and was never issued`, { seq: entry.seq })
  else grant.revokedSeq = entry.seq
}

/** Applies one transfer. A transfer that cannot be is told and, as far as its accounts exist, applied all the same. */
export function readTransfer(
  journal: Journal,
  entry: BalanceEntry,
  charge: OpenCharge | undefined,
  tell: Tell,
): void {
  const { seq, request, from, to, amount, reason } = entry
  const about = { seq, request, amount }
  if (amount <= 0) {
    tell(
      'transfer',
      `a transfer from ${from} to ${to} moves ${cu(amount)}; it must move more than nothing`,
      about,
    )
    return
  }
  if (!WAYS[reason].some(([one, other]) => one === side(from) && other === side(to)))
    tell('transfer', `${cu(amount)} move from ${from} to ${to}, which is no way to be “${reason}”`, about)
  for (const account of [from, to]) {
    if (isGrant(account) && grantOf(journal, account) === undefined)
      tell('transfer', `${cu(amount)} move between ${from} and ${to}, and ${account} was never issued`, about)
  }
  const owes = reason === 'refund' ? takeBack(entry, charge, tell) : 'own'
  if (reason === 'charge') take(entry, charge, tell)
  move(journal, entry, owes, tell)
}

const side = (account: LedgerAccount): Side => (isGrant(account) ? 'grant' : account)
const grantOf = (journal: Journal, account: string): GrantTrace | undefined =>
  journal.grants.get(account.slice('grant:'.length))

function take(entry: BalanceEntry, charge: OpenCharge | undefined, tell: Tell): void {
  const { seq, request, from, amount } = entry
  const due = linked(entry, charge) ? charge.due.get(from) : undefined
  if (charge === undefined || due === undefined || due < amount || charge.back) {
    const says = due === undefined ? 'no charge takes them' : `its charge takes ${cu(due)}`
    tell('transfer', `${cu(amount)} move from ${from} as charged, and ${says} from there`, {
      seq,
      request,
      amount,
    })
    return
  }
  charge.due.set(from, due - amount)
}

/** A refund's transfer answers to its source, or, where the debt had been repaid, comes back as a grant of its own. */
function takeBack(entry: BalanceEntry, charge: OpenCharge | undefined, tell: Tell): 'own' | 'credit' {
  const { seq, request, to, amount } = entry
  const due = linked(entry, charge) && charge.back ? charge.due : undefined
  const source = due?.get(to) !== undefined ? to : isGrant(to) ? 'debt' : to
  const left = due?.get(source)
  if (due === undefined || left === undefined || left < amount) {
    const says = left === undefined ? 'no correction gives them' : `its correction gives ${cu(left)}`
    tell('transfer', `${cu(amount)} move back to ${to}, and ${says} there`, { seq, request, amount })
    return 'own'
  }
  due.set(source, left - amount)
  return source === to ? 'own' : 'credit'
}

function linked(entry: BalanceEntry, charge: OpenCharge | undefined): charge is OpenCharge {
  return charge !== undefined && entry.charge === charge.seq
}

function move(journal: Journal, entry: BalanceEntry, owes: 'own' | 'credit', tell: Tell): void {
  const { seq, request, from, to, amount, reason } = entry
  if (isGrant(from)) {
    const grant = grantOf(journal, from)
    if (grant !== undefined) {
      if (reason === 'charge') grant.charged += amount
      else if (reason === 'expired') grant.expired += amount
      else if (reason === 'revoked') grant.revoked += amount
      else if (reason === 'repaid') grant.repaid += amount
      else grant.rolled += amount
      if (reason === 'repaid' && entry.previous === grant.seq) grant.repaidAtOnce += amount
      const left = remainingOf(grant)
      if (left < 0)
        tell('balance', `${from} pays ${cu(amount)} and would stand at ${cu(left)}`, {
          seq,
          request,
          amount: left,
        })
    }
  } else post(journal, from, -amount, entry, tell)
  if (isGrant(to)) {
    const grant = grantOf(journal, to)
    if (grant === undefined) return
    if (reason === 'refund' && owes === 'own') {
      grant.refunded += amount
      if (grant.refunded > grant.charged)
        tell('balance', `${to} has got back ${cu(grant.refunded)} of ${cu(grant.charged)} charged to it`, {
          seq,
          request,
          amount: grant.refunded - grant.charged,
        })
    } else {
      grant.funded += amount
      if (grant.funded > grant.amount)
        tell('grant', `${to} was issued over ${cu(grant.amount)} and has been given ${cu(grant.funded)}`, {
          seq,
          request,
          amount: grant.funded - grant.amount,
        })
    }
  } else post(journal, to, amount, entry, tell)
}

function post(journal: Journal, account: keyof Books, amount: number, entry: BalanceEntry, tell: Tell): void {
  const { seq, request } = entry
  const before = journal.books[account]
  // Only damaged lines leave the range; the sum then stays where it was, and the cells will not agree.
  const after = Number.isSafeInteger(before + amount) ? add(before, amount) : before
  journal.books[account] = after
  const wrong = NEVER_ABOVE_ZERO.includes(account) ? after > 0 && before <= 0 : after < 0 && before >= 0
  if (wrong)
    tell('balance', `${account} would stand at ${cu(after)}, which it never can`, {
      seq,
      request,
      amount: after,
    })
}

/** After the last entry: every grant must have been given what it was issued over. */
export function checkFunding(journal: Journal, tell: Tell): void {
  for (const [id, { amount, funded, seq }] of journal.grants) {
    if (funded < amount)
      tell('grant', `grant ${id} was issued over ${cu(amount)}, and transfers gave it ${cu(funded)}`, {
        seq,
        amount: amount - funded,
      })
  }
}
