/** How holds end, uses are charged and charges corrected, by the auditor's own books. */
import {
  amountOf,
  type Books,
  type ChargeBook,
  type Counted,
  chargedOf,
  debtOf,
  enter,
  type GrantBook,
  grantRoom,
  type HoldBook,
  least,
  open,
  type Part,
  planOf,
  type RequestBook,
  sum,
  type Take,
} from './naive-books.ts'
import { budgetWindow, guardsFor, rateRoom, walkExcess } from './naive-decide.ts'
import { admit, giveBack } from './naive-rates.ts'

/** What was truly used: of each quantity, and in all. */
export interface Use {
  readonly cost: bigint
  /** Undefined where only a cost was told: then rates over quantities stay as they were. */
  readonly quantities: Readonly<Record<string, bigint>> | undefined
}

/** Cuts a split after `amount`, in its own order. */
export function upTo<T extends { readonly amount: bigint }>(parts: readonly T[], amount: bigint): T[] {
  let left = amount
  return parts.flatMap((part) => {
    const taken = least(left, part.amount)
    left -= taken
    return taken > 0n ? [{ ...part, amount: taken }] : []
  })
}

/** What a grant that has ended gets back goes where the rest of it went. */
export function emptyEnded(books: Books): void {
  for (const grant of books.grants) {
    const left = grant.ended === undefined ? 0n : grantRoom(books, grant)
    if (left > 0n) grant.moves.push({ why: grant.ended as 'expired' | 'revoked', amount: left })
  }
}

/** Gives everything back. Answers how much was held. */
export function releaseHold(books: Books, request: RequestBook): bigint {
  const hold = request.hold as HoldBook
  delete request.hold
  adjustTakes(books, request, hold.takes, { cost: 0n, quantities: {} })
  emptyEnded(books)
  return amountOf(hold.parts)
}

/** Charges a hold, in its own order; the rest goes back, an excess walks the waterfall of now. */
export function chargeHold(books: Books, request: RequestBook, use: Use): ChargeBook {
  const hold = request.hold as HoldBook
  const kept = upTo(hold.parts, use.cost)
  const budgets = [...Map.groupBy(hold.budgets, (one) => one.window.name).values()]
  const counted = budgets.flatMap((held) => upTo(held, use.cost))
  delete request.hold
  request.takes = adjustTakes(books, request, hold.takes, use)
  const within = enter(books, request, { at: books.now, parts: kept, counted })
  emptyEnded(books)
  const excess = use.cost - amountOf(kept)
  if (excess <= 0n) return within
  const beyond = chargeMore(books, request, excess)
  return { at: books.now, parts: [...kept, ...beyond.parts], counted: [...counted, ...beyond.counted] }
}

/** A use that no hold stands for. Guards count it and do not refuse it; what was admitted once is not another request. */
export function chargeRecorded(
  books: Books,
  request: RequestBook,
  use: Use,
  wasAdmitted: boolean,
): ChargeBook {
  for (const guard of guardsFor(books, request.feature, request.subject)) {
    if (!('rate' in guard)) continue
    const { meter } = guard.rate
    if (meter === 'requests' && wasAdmitted) continue
    const amount = meter === 'requests' ? 1n : meter === 'cost' ? use.cost : (use.quantities?.[meter] ?? 0n)
    const { book, pace } = rateRoom(books, guard, request.subject)
    if (amount > 0n) admit(book, pace, amount, books.now)
  }
  return chargeMore(books, request, use.cost)
}

/** The whole of it walks the waterfall. */
export function chargeMore(books: Books, request: RequestBook, cost: bigint): ChargeBook {
  return enter(books, request, {
    at: books.now,
    parts: cost > 0n ? walkExcess(books, cost, request).parts : [],
    counted: countInBudgets(books, request, cost),
  })
}

function countInBudgets(books: Books, request: RequestBook, amount: bigint): Counted[] {
  if (amount <= 0n) return []
  return guardsFor(books, request.feature, request.subject).flatMap((guard) =>
    'budget' in guard ? [{ window: open(books, budgetWindow(books, guard, request.subject)), amount }] : [],
  )
}

/** Rates count what was used: more is added now, less is as if it had never been admitted, the last first. */
function adjustTakes(books: Books, request: RequestBook, all: readonly Take[], use: Use): Take[] {
  const counted: Take[] = []
  const applying = guardsFor(books, request.feature, request.subject)
  for (const guard of planOf(books).guards ?? []) {
    if (!('rate' in guard) || guard.rate.meter === 'requests') continue
    const { name, by } = guard
    if (by !== undefined && request.subject[by] === undefined) continue
    const { meter } = guard.rate
    const { book, pace } = rateRoom(books, guard, request.subject)
    const takes = all.filter((one) => one.book === book && one.meter === meter)
    counted.push(...takes)
    if (meter !== 'cost' && use.quantities === undefined) continue
    const truly = meter === 'cost' ? use.cost : (use.quantities?.[meter] ?? 0n)
    const admitted = sum(takes.map(({ admission }) => admission.amount))
    // A guard that does not count this feature any more only gives back.
    if (truly > admitted && applying.includes(guard))
      counted.push({ name, meter, book, admission: admit(book, pace, truly - admitted, books.now) })
    let back = admitted - truly
    for (const { admission } of takes.toReversed()) {
      const amount = least(back, admission.amount)
      if (amount > 0n) giveBack(book, pace, admission, amount, books.now)
      back -= amount
    }
  }
  return counted
}

/** A hold that was charged by itself was charged too little, or too much. Answers what that changes. */
export function chargeDifference(
  books: Books,
  request: RequestBook,
  use: Use,
  newGrant: (amount: bigint) => GrantBook,
): readonly Part[] {
  adjustTakes(books, request, request.takes ?? [], use)
  const gross = sum(request.charges.filter((one) => !one.isRefund).map(({ parts }) => amountOf(parts)))
  const standing = chargedOf(request)
  const difference = use.cost - gross
  if (difference > 0n) return chargeMore(books, request, difference).parts
  return difference < 0n ? correct(books, request, least(-difference, standing), newGrant, false) : []
}

/** Takes back part of what was charged, last source first. Answers what went where. */
export function correct(
  books: Books,
  request: RequestBook,
  amount: bigint,
  newGrant: (amount: bigint) => GrantBook,
  isRefund = true,
): Part[] {
  const outstanding = standing(request).toReversed()
  const parts: Part[] = []
  for (const part of upTo(outstanding, amount)) parts.push({ ...part, amount: -part.amount })
  const counted = budgetsOf(request).flatMap((held) =>
    upTo(held.toReversed(), amount).map((one) => ({ ...one, amount: -one.amount })),
  )
  // Debt that a grant has repaid since is not owed any more: what comes back is credit.
  const debtBack = -amountOf(parts.filter((part) => part.source === 'debt'))
  const owed = debtOf(books)
  if (debtBack > owed) {
    books.repaid -= debtBack - owed
    books.grants.push(newGrant(debtBack - owed))
  }
  enter(books, request, { at: books.now, parts, counted, isRefund })
  emptyEnded(books)
  return parts
}

/** What is still charged, as it was drawn. What one source paid in the same windows is one. */
export function standing(request: RequestBook): Part[] {
  const place = (part: Part): string =>
    [part.source, ...part.windows.map(({ name, startAt }) => `${name} ${startAt}`)].join()
  const all = netted(request.charges.flatMap(({ parts }) => parts))
  const joined = [...Map.groupBy(all, place).values()]
  return joined.map((same) => ({ ...(same[0] as Part), amount: amountOf(same) }))
}

function budgetsOf(request: RequestBook): Counted[][] {
  const all = request.charges.flatMap(({ counted }) => counted)
  return [...Map.groupBy(all, (one) => one.window.name).values()].map(netted)
}

/** Corrections cancel what they corrected: the last of the same place first. */
function netted<T extends { readonly amount: bigint }>(all: readonly T[]): T[] {
  const standing: T[] = []
  for (const one of all) {
    if (one.amount > 0n) standing.push(one)
    let back = -one.amount
    for (let i = standing.length - 1; i >= 0 && back > 0n; i--) {
      const taken = least(back, (standing[i] as T).amount)
      standing[i] = { ...(standing[i] as T), amount: (standing[i] as T).amount - taken }
      back -= taken
    }
  }
  return standing.filter((one) => one.amount > 0n)
}
