/** What a decision should be, by the auditor's own books. */
import type * as wire from '../wire.ts'
import {
  type Allowance,
  amountOf,
  atLeastZero,
  type Books,
  type Budget,
  burnOrder,
  debtOf,
  type FoundWindow,
  grantRoom,
  holdsIn,
  keyOf,
  least,
  limitOf,
  matchesFeature,
  open,
  type Part,
  paceOf,
  planOf,
  type Rate,
  rateBook,
  rateKeyOf,
  type WindowBook,
  windowOf,
  windowRoom,
} from './naive-books.ts'
import { micros } from './naive-prices.ts'
import { isLoose, recall, used } from './naive-rates.ts'

export interface Ask {
  readonly feature: string
  readonly subject: wire.Subject
  readonly need: bigint
  /** The least that is of use, where less than the whole is. */
  readonly floor: bigint | undefined
  readonly quantities: Readonly<Record<string, bigint>> | undefined
  /** All quantities, and what a part of them costs, where the cost was priced from them. */
  readonly whole?: Readonly<Record<string, bigint>> | undefined
  /** Those that a part must have at the least. */
  readonly least?: Readonly<Record<string, bigint>> | undefined
  readonly priceOfPart?: (part: Readonly<Record<string, bigint>>) => bigint
  /** An extend does not ask for places and requests again. */
  readonly isExtend: boolean
}
export interface Verdict {
  /** What stands against the whole, in the order of the design's list of reasons. */
  readonly blockers: readonly string[]
  readonly granted: bigint
  /** Whether as much as `granted` would do in place of the whole. */
  readonly isPartWelcome: boolean
  /** Set where a rate cannot be predicted, or counts a quantity: then a part is known only by its bounds. */
  readonly isUnsure: boolean
}

export const REASONS = [
  'released',
  'hold_closed',
  'account_suspended',
  'account_closed',
  'feature_not_allowed',
  'subject_limit',
  'too_large',
  'rate_full',
  'concurrency_full',
  'budget_spent',
  'in_debt',
  'allowance_spent',
  'credits_short',
  'overage_spent',
  'granted_in_part',
  'granted',
]

const applies = (one: { readonly features?: readonly string[]; readonly by?: string }, ask: Ask): boolean =>
  matchesFeature(one.features, ask.feature) && (one.by === undefined || ask.subject[one.by] !== undefined)

export function guardsFor(books: Books, feature: string, subject: wire.Subject) {
  return (planOf(books).guards ?? []).filter(
    (guard) =>
      matchesFeature(guard.features, feature) && (guard.by === undefined || subject[guard.by] !== undefined),
  )
}

/** Dimensions that this feature is counted by and the subject does not have. */
export function missingDimensions(books: Books, feature: string, subject: wire.Subject): string[] {
  const plan = planOf(books)
  const counted = [...(plan.guards ?? []), ...plan.waterfall.filter((one) => 'allowance' in one)]
  return counted
    .filter((one) => matchesFeature(one.features, feature) && one.by !== undefined)
    .map((one) => one.by as string)
    .filter((by) => subject[by] === undefined)
}

export function decide(books: Books, ask: Ask): Verdict {
  const blockers: string[] = []
  const caps: bigint[] = [ask.need]
  let isUnsure = false
  let isCounted = true
  for (const guard of guardsFor(books, ask.feature, ask.subject)) {
    if ('concurrency' in guard) {
      const limit = limitOf(books, guard.name, guard.by, ask.subject, micros(guard.concurrency)) / 1_000_000n
      if (ask.isExtend || holdsIn(books, keyOf(guard.name, guard.by, ask.subject)) < limit) continue
      isCounted = false
      blockers.push('concurrency_full')
    } else if ('budget' in guard) {
      const room = windowRoom(
        books,
        budgetWindow(books, guard, ask.subject),
        budgetLimit(books, guard, ask.subject),
      )
      caps.push(room)
      if (ask.need > room) blockers.push('budget_spent')
    } else {
      const { capacity, room, isLoose } = rateRoom(books, guard, ask.subject)
      const { meter } = guard.rate
      if (isLoose) {
        isUnsure = true
        continue
      }
      if (meter === 'requests') {
        if (ask.isExtend || room >= 1n) continue
        isCounted = false
        blockers.push(capacity < 1n ? 'too_large' : 'rate_full')
      } else if (meter === 'cost') {
        caps.push(room)
        if (ask.need > capacity) blockers.push('too_large')
        else if (ask.need > room) blockers.push('rate_full')
      } else {
        const whole = ask.quantities?.[meter] ?? 0n
        if (whole <= room) continue
        isUnsure = true
        blockers.push(whole > capacity ? 'too_large' : 'rate_full')
      }
    }
  }
  const cover = amountOf(walk(books, ask.need, ask))
  caps.push(cover)
  if (cover < ask.need) blockers.push(shortReason(books, ask))
  blockers.sort((a, b) => REASONS.indexOf(a) - REASONS.indexOf(b))
  const granted = least(...caps)
  const isSome = granted > 0n || ask.need === 0n
  const isPartWelcome = ask.floor !== undefined && isCounted && isSome && granted >= ask.floor
  return { blockers, granted, isPartWelcome, isUnsure }
}

export function rateRoom(books: Books, guard: Rate, subject: wire.Subject) {
  const pace = paceOf(books, guard, subject)
  const book = rateBook(books, rateKeyOf(guard, subject))
  recall(book, pace)
  const counted = used(book, pace, books.now)
  const room = atLeastZero(pace.capacity - counted)
  return { pace, book, capacity: pace.capacity, counted, room, isLoose: isLoose(book, pace) }
}

export const budgetWindow = (books: Books, guard: Budget, subject: wire.Subject): FoundWindow =>
  windowOf(books, keyOf(guard.name, guard.by, subject), guard)
export const budgetLimit = (books: Books, guard: Budget, subject: wire.Subject): bigint =>
  limitOf(books, guard.name, guard.by, subject, micros(guard.budget))

export function allowanceWindows(
  books: Books,
  { allowance, by, windows }: Allowance,
  subject: wire.Subject,
): { readonly window: FoundWindow; readonly limit: bigint; readonly name: string }[] {
  return windows.map((written) => {
    const name = `${allowance}/${written.name}`
    const window = windowOf(books, keyOf(name, by, subject), written, true)
    return { window, name, limit: limitOf(books, name, by, subject, micros(written.limit)) }
  })
}

/** Each source in order gives the lesser of what is still needed and what it has. Nothing is written. */
export function walk(
  books: Books,
  need: bigint,
  ask: { readonly feature: string; readonly subject: wire.Subject },
): Part[] {
  const parts: Part[] = []
  const inDebt = debtOf(books) > 0n
  let left = need
  const take = (part: Part): void => {
    if (part.amount <= 0n) return
    parts.push(part)
    left -= part.amount
  }
  for (const source of planOf(books).waterfall) {
    if ('allowance' in source) {
      if (!applies(source, ask as Ask)) continue
      const all = allowanceWindows(books, source, ask.subject)
      const room = least(...all.map(({ window, limit }) => windowRoom(books, window, limit)))
      const windows = all.map(({ window }) => window)
      take({ source: `allowance:${source.allowance}`, windows, amount: least(left, room) })
    } else if (inDebt) {
    } else if ('credits' in source) {
      for (const grant of burnOrder(books, source.credits, ask.feature, ask.subject))
        take({
          source: `grant:${grant.id}`,
          grant,
          windows: [],
          amount: least(left, grantRoom(books, grant)),
        })
    } else {
      const window = windowOf(books, keyOf('overage', undefined, {}), source.overage)
      const room = windowRoom(books, window, overageLimit(books, source))
      take({ source: 'overage', windows: [window], amount: least(left, room) })
    }
  }
  return parts
}

export const overageLimit = (
  books: Books,
  source: { readonly overage: { readonly limit: string | number } },
): bigint => limitOf(books, 'overage', undefined, {}, micros(source.overage.limit))

/** Of all sources that fell short, the one that stands first in the list of reasons. */
function shortReason(books: Books, ask: Ask): string {
  const { waterfall } = planOf(books)
  const hasOthers = waterfall.some((one) => !('allowance' in one))
  if (debtOf(books) > 0n && hasOthers) return 'in_debt'
  if (waterfall.some((one) => 'allowance' in one && applies(one, ask))) return 'allowance_spent'
  const hasOverage = waterfall.some((one) => 'overage' in one)
  return hasOverage && !waterfall.some((one) => 'credits' in one) ? 'overage_spent' : 'credits_short'
}

/** Opens the windows that a split counts in. */
export function opened(books: Books, parts: readonly Part[]): Part[] {
  return parts.map((part) => ({ ...part, windows: part.windows.map((window) => open(books, window)) }))
}

/** The cost that exceeds everything a hold had: allowances, credits, overage, then absorbed, then debt. */
export function walkExcess(
  books: Books,
  excess: bigint,
  ask: { readonly feature: string; readonly subject: wire.Subject },
): { readonly parts: Part[]; readonly absorbed: { readonly window: WindowBook; readonly amount: bigint }[] } {
  const parts = opened(books, walk(books, excess, ask))
  let left = excess - amountOf(parts)
  const absorbed: { window: WindowBook; amount: bigint }[] = []
  const shortfall = planOf(books).on_shortfall
  if (left > 0n && shortfall !== undefined) {
    const window = windowOf(books, 'absorb|', shortfall)
    const amount = least(left, windowRoom(books, window, micros(shortfall.absorb)))
    if (amount > 0n) {
      parts.push({ source: 'absorbed', windows: [open(books, window)], amount })
      left -= amount
    }
  }
  if (left > 0n) parts.push({ source: 'debt', windows: [], amount: left })
  return { parts, absorbed }
}
