/** What happens by itself as time passes: holds end, grants expire, come again and roll over, each at its instant. */
import type { Millis } from '../units.ts'
import { spanAt } from './calendar.ts'
import {
  amountOf,
  type Books,
  debtOf,
  type GrantBook,
  grantRoom,
  least,
  openRequests,
  planOf,
  type RecurrenceBook,
  type RecurringGrantDocument,
} from './naive-books.ts'
import { chargeHold, emptyEnded, releaseHold } from './naive-exits.ts'
import { micros } from './naive-prices.ts'

/** Brings the books to an instant, event by event. */
export function advance(books: Books, to: Millis): void {
  for (let next = nextEvent(books, to); next !== undefined; next = nextEvent(books, to)) {
    books.now = Math.max(books.now, next.at)
    next.run()
  }
  books.now = Math.max(books.now, to)
}

function nextEvent(books: Books, to: Millis): { readonly at: Millis; run(): void } | undefined {
  const events: { at: Millis; run(): void }[] = []
  // Of two holds with one end, the one whose id comes first is closed first: the design leaves it open, and any node must agree.
  const open = openRequests(books).toSorted((a, b) => (a.id < b.id ? -1 : 1))
  for (const request of open) {
    const at = request.hold?.expiresAt as Millis
    events.push({ at, run: () => closeHold(books, request) })
  }
  // At one instant holds end first, then grants start, end and come again.
  for (const grant of books.grants) {
    if (grant.ended !== undefined || grant.hasStarted) continue
    events.push({ at: grant.startsAt, run: () => void repay(books, grant) })
  }
  for (const grant of books.grants) {
    if (grant.ended !== undefined || grant.expiresAt === null) continue
    const recurrence = books.recurrences.find((one) => one.grant === grant)
    events.push({ at: grant.expiresAt, run: () => endGrant(books, grant, recurrence) })
  }
  for (const recurrence of books.recurrences) {
    const { nextAt } = recurrence
    if (nextAt !== null) events.push({ at: nextAt, run: () => recur(books, recurrence) })
  }
  const due = events.filter(({ at }) => at <= to)
  return due.sort((a, b) => a.at - b.at)[0]
}

function closeHold(books: Books, request: Parameters<typeof releaseHold>[1]): void {
  const hold = request.hold
  if (hold === undefined) return
  if (hold.onExpiry === 'release') {
    releaseHold(books, request)
    request.state = 'expired_released'
  } else {
    // Where nothing was reported, the whole hold is taken for used.
    const use = hold.used ?? { cost: amountOf(hold.parts), quantities: hold.quantities }
    chargeHold(books, request, use)
    request.state = 'expired_charged'
  }
}

function expire(books: Books, grant: GrantBook): void {
  grant.ended = 'expired'
  emptyEnded(books)
}

/** A grant ends. Of one that recurs, what is left rolls over up to a bound; the rest expires. */
function endGrant(books: Books, grant: GrantBook, recurrence: RecurrenceBook | undefined): void {
  const at = grant.expiresAt as Millis
  const written = recurrence === undefined ? undefined : writtenAs(books, recurrence)
  const over =
    written?.every === undefined ? 0n : least(grantRoom(books, grant), micros(written.rollover ?? 0))
  if (written !== undefined && over > 0n) {
    grant.moves.push({ why: 'rollover', amount: over })
    const child = {
      ...planGrant(written, over, at, periodEnd(books, written, at)),
      priority: grant.priority,
      features: grant.features,
    }
    books.grants.push(child)
    repay(books, child)
  }
  expire(books, grant)
}

/** The next period begins: after everything that ends at its instant, other periods too. */
function recur(books: Books, recurrence: RecurrenceBook): void {
  const at = recurrence.nextAt as Millis
  const written = writtenAs(books, recurrence)
  if (written?.every === undefined) {
    books.recurrences = books.recurrences.filter((one) => one !== recurrence)
    return
  }
  recurrence.grant = issue(books, written, at)
  recurrence.nextAt = periodEnd(books, written, at)
}

const writtenAs = (books: Books, { name }: RecurrenceBook): RecurringGrantDocument | undefined =>
  planOf(books).grants?.find((one) => (one.name ?? one.kind) === name)

const periodEnd = (books: Books, written: RecurringGrantDocument, at: Millis): Millis => {
  const { every, anchor, week_start } = written
  const window = {
    per: every as string,
    ...(anchor === undefined ? {} : { anchor }),
    ...(week_start === undefined ? {} : { week_start }),
  }
  return spanAt(window, false, at, books.frame).endAt
}

function planGrant(
  written: RecurringGrantDocument,
  amount: bigint,
  startsAt: Millis,
  expiresAt: Millis | null,
): GrantBook {
  return {
    id: undefined,
    kind: written.kind,
    amount,
    priority: written.priority ?? 100,
    startsAt,
    expiresAt,
    features: written.features,
    subjects: undefined,
    recurring: written.name ?? written.kind,
    hasStarted: false,
    charged: [],
    moves: [],
  }
}

function issue(books: Books, written: RecurringGrantDocument, at: Millis): GrantBook {
  const endAt = written.every === undefined ? null : periodEnd(books, written, at)
  const grant = planGrant(written, micros(written.amount), at, endAt)
  books.grants.push(grant)
  repay(books, grant)
  return grant
}

/** A grant without scope repays debt before anything else. Answers how much. */
export function repay(books: Books, grant: GrantBook): bigint {
  grant.hasStarted = true
  if (grant.features !== undefined || grant.subjects !== undefined) return 0n
  const amount = least(debtOf(books), grantRoom(books, grant))
  if (amount <= 0n) return 0n
  grant.moves.push({ why: 'repaid', amount })
  books.repaid += amount
  return amount
}

/** The plan's grants that have no recurrence yet begin now. After a change of plan all of them do. */
export function beginGrants(books: Books, changed: boolean): void {
  if (changed) books.recurrences = []
  const written = planOf(books).grants ?? []
  for (const one of written) {
    const name = one.name ?? one.kind
    const begun = books.recurrences.find((recurrence) => recurrence.name === name)
    // What came once and is to come again does so from the next period on.
    if (begun?.nextAt === null && one.every !== undefined) begun.nextAt = periodEnd(books, one, books.now)
    if (begun !== undefined) continue
    const grant = issue(books, one, books.now)
    books.recurrences.push({ name, grant, nextAt: grant.expiresAt })
  }
}
