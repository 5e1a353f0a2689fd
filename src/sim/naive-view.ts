/** Whether the numbers that a user sees are the numbers of the books. */
import type * as wire from '../wire.ts'
import { expectSame, expectThat } from './disagreement.ts'
import {
  type Books,
  burnOrder,
  debtOf,
  type FoundWindow,
  type GrantBook,
  grantHeld,
  grantLeft,
  grantRoom,
  holdsIn,
  isActive,
  keyOf,
  limitOf,
  matchesFeature,
  openRequests,
  planOf,
  type Rate,
  rateKeyOf,
  sum,
  windowHeld,
  windowOf,
  windowRoom,
  windowUsed,
} from './naive-books.ts'
import { allowanceWindows, budgetLimit, budgetWindow, overageLimit, rateRoom } from './naive-decide.ts'
import { micros } from './naive-prices.ts'
import { type Pace, spend } from './naive-rates.ts'

type Line = Pick<wire.Limit, 'kind' | 'name'> & {
  readonly key: string
  readonly limit: bigint
  readonly used: bigint
  readonly held: bigint
  readonly remaining: bigint
  /** Null where there must be none, undefined where it is not predicted. */
  readonly resetsAt?: number | null
  /** How much more than this may count, because a level is given back in whole units; undefined is not at all. */
  readonly slack?: bigint
  /** What counts cannot be predicted. */
  readonly isLoose?: boolean
  readonly pace?: Pace
}

/** What each limit should say. With a feature, only those that it is asked of. */
export function linesOf(books: Books, subject: wire.Subject, feature?: string): Line[] {
  const applies = (one: { readonly features?: readonly string[]; readonly by?: string }): boolean =>
    (feature === undefined || matchesFeature(one.features, feature)) &&
    (one.by === undefined || subject[one.by] !== undefined)
  const window = (kind: Line['kind'], name: string, one: FoundWindow, limit: bigint): Line => ({
    kind,
    name,
    key: one.name,
    limit,
    used: windowUsed(one),
    held: windowHeld(books, one),
    remaining: windowRoom(books, one, limit),
    // A window of first use that nothing has opened has no end yet.
    // A window that opens at its first use has no end before.
    resetsAt: one.isOpen || !one.opensAtUse ? one.endAt : null,
  })
  const lines: Line[] = []
  for (const guard of planOf(books).guards ?? []) {
    if (!applies(guard)) continue
    const { name, by } = guard
    const key = keyOf(name, by, subject)
    if ('budget' in guard) {
      const one = budgetWindow(books, guard, subject)
      lines.push(window('budget', name, one, budgetLimit(books, guard, subject)))
    } else if ('concurrency' in guard) {
      const limit = limitOf(books, name, by, subject, micros(guard.concurrency)) / 1_000_000n
      const held = holdsIn(books, key)
      const remaining = limit > held ? limit - held : 0n
      lines.push({ kind: 'concurrency', name, key, limit, used: 0n, held, remaining })
    } else {
      const { pace, counted, room, book, isLoose } = rateRoom(books, guard, subject)
      lines.push({
        kind: 'rate',
        name,
        key: rateKeyOf(guard, subject),
        limit: pace.limit,
        used: counted,
        held: 0n,
        remaining: room,
        isLoose,
        pace,
        slack: pace.algorithm === 'gcra' ? book.givenBack : 0n,
      })
    }
  }
  for (const source of planOf(books).waterfall) {
    if ('allowance' in source) {
      if (!applies(source)) continue
      for (const { window: one, limit, name } of allowanceWindows(books, source, subject))
        lines.push(window('allowance', name, one, limit))
    } else if ('overage' in source) {
      const one = windowOf(books, 'overage|', source.overage)
      lines.push(window('overage', 'overage', one, overageLimit(books, source)))
    } else if (feature !== undefined) {
      const grants = burnOrder(books, source.credits, feature, subject)
      const limit = sum(grants.map((grant) => grantLeft(grant)))
      const held = sum(grants.map((grant) => grantHeld(books, grant)))
      const name = source.credits.join('+')
      lines.push({ kind: 'credits', name, key: name, limit, used: 0n, held, remaining: limit - held })
    }
  }
  return lines
}

/** Holds the limits of an answer against the books as they are after it. */
export function checkLines(
  books: Books,
  limits: readonly wire.Limit[],
  feature: string | undefined,
  subject: wire.Subject,
): void {
  const expected = linesOf(books, subject, feature)
  expectSame(
    limits.map(({ kind, name }) => `${kind} ${name}`),
    expected.map(({ kind, name }) => `${kind} ${name}`),
    'the limits told',
  )
  for (const [place, line] of expected.entries()) checkLine(books, limits[place] as wire.Limit, line)
}

const whole = (text: string): bigint => micros(text)

function checkLine(books: Books, told: wire.Limit, line: Line): void {
  const what = `${line.kind} ${line.key}`
  const unit = told.unit === 'requests' || told.unit === 'holds' ? 1_000_000n : 1n
  const number = (text: string): bigint => whole(text) / unit
  expectSame(number(told.limit), line.limit, `limit of ${what}`)
  if (line.isLoose === true) {
    // Nothing counts of what was not predicted: from here on it is known again.
    const rate = books.rates.get(line.key)
    if (told.used === '0' && rate !== undefined && line.pace !== undefined) spend(rate, line.pace)
    return
  }
  const slack = line.slack ?? 0n
  const more = number(told.used) - line.used
  if (more < 0n || more > slack) expectSame(number(told.used), line.used, `used of ${what}`)
  expectSame(number(told.held), line.held, `held of ${what}`)
  const less = line.remaining - number(told.remaining)
  if (less < 0n || less > slack) expectSame(number(told.remaining), line.remaining, `remaining of ${what}`)
  if (line.resetsAt !== undefined) expectSame(told.resets_at ?? null, line.resetsAt, `end of ${what}`)
  expectThat(told.resets_at === undefined || told.resets_at > books.now, `${what} ended before now`)
}

/** Holds an account's view against the books. Plan grants that are new there get their ids from it. */
export function checkView(books: Books, view: wire.AccountView, subject: wire.Subject): void {
  learnIds(books, view.credits.grants)
  const active = books.grants.filter((grant) => isActive(books, grant))
  expectSame(view.plan, books.plan, 'plan')
  expectSame(view.status, books.status, 'status')
  expectSame(view.time_zone, books.frame.zone, 'zone')
  expectSame(micros(view.credits.debt), debtOf(books), 'debt')
  expectSame(view.open_holds, openRequests(books).length, 'open holds')
  for (const told of view.credits.grants) {
    const grant = books.grants.find((one) => one.id === told.id)
    expectThat(grant !== undefined, `there is no grant ${told.id}: ${JSON.stringify(told)}`)
    checkGrant(books, told, grant)
  }
  for (const grant of books.grants) {
    if (grantLeft(grant) === 0n) continue
    expectThat(
      view.credits.grants.some((told) => told.id === grant.id),
      `grant ${grant.id ?? `of ${grant.startsAt}`} with ${grantLeft(grant)} µCU is not shown`,
    )
  }
  const all = sum(books.grants.map((grant) => grantHeld(books, grant)))
  expectSame(micros(view.credits.held), all, 'credits held')
  const usable = sum(active.map((grant) => grantRoom(books, grant)))
  expectSame(micros(view.credits.available), usable, 'credits available')
  const limits = [
    ...view.limits,
    ...view.allowances.flatMap(({ name, windows, ...rest }) =>
      windows.map((window) => ({
        ...rest,
        ...window,
        kind: 'allowance' as const,
        name: `${name}/${window.name}`,
        unit: 'cu',
      })),
    ),
    ...(view.overage === null ? [] : [view.overage]),
  ]
  for (const line of limits) {
    const guard = planOf(books).guards?.find((one) => one.name === line.name && 'rate' in one) as
      | Rate
      | undefined
    const key = keyOf(line.name, line.by, subject)
    if (guard !== undefined) rateRoom(books, guard, subject)
    dropDoubtful(books, key, guard === undefined ? key : rateKeyOf(guard, subject), line)
  }
  const order = (line: { readonly kind: string }): number => ['allowance', 'overage'].indexOf(line.kind)
  const expected = linesOf(books, subject).sort((a, b) => order(a) - order(b))
  expectSame(
    limits.map(({ kind, name }) => `${kind} ${name}`),
    expected.map(({ kind, name }) => `${kind} ${name}`),
    'the limits shown',
  )
  for (const [place, line] of expected.entries()) checkLine(books, limits[place] as wire.Limit, line)
}

const NEVER = { charged: [] }

/** State that may have gone is taken for gone where nothing is told of it. */
function dropDoubtful(
  books: Books,
  key: string,
  rateKey: string,
  { used, resets_at }: Pick<wire.Limit, 'used' | 'resets_at'>,
): void {
  const rate = books.rates.get(rateKey)
  const window = books.windows.get(key)
  const isGone = windowUsed(window ?? NEVER) > 0n || resets_at !== window?.endAt
  const mayHaveGone = window?.isDoubtful === true && used === '0' && windowHeld(books, window) === 0n
  if (mayHaveGone && isGone) books.windows.delete(key)
  if (rate?.isDoubtful === true && used === '0') rate.admissions.length = 0
  if (rate !== undefined) rate.isDoubtful = false
  // One that nothing was used of looks the same whether it is there or not, until the zone changes.
  if (window !== undefined) window.isDoubtful = mayHaveGone
}

function checkGrant(books: Books, told: wire.GrantView, grant: GrantBook): void {
  const what = `grant ${grant.id}`
  expectSame(micros(told.amount), grant.amount, `amount of ${what}`)
  expectSame(micros(told.remaining), grantLeft(grant), `remaining of ${what}`)
  expectSame(micros(told.held), grantHeld(books, grant), `held of ${what}`)
  expectThat(grantRoom(books, grant) >= 0n, `${what} holds more than it has`)
  expectSame([told.starts_at, told.expires_at], [grant.startsAt, grant.expiresAt], `life of ${what}`)
  if (grant.ended !== undefined) expectSame(told.status, grant.ended, `status of ${what}`)
  else if (grant.startsAt > books.now) expectSame(told.status, 'pending', `status of ${what}`)
  else expectSame(told.status, grantLeft(grant) > 0n ? 'active' : 'spent', `status of ${what}`)
}

/** Until something is written, the ids of what time alone has brought may be given anew. */
function learnIds(books: Books, shown: readonly wire.GrantView[]): void {
  for (const grant of books.grants) {
    const isUsed = grant.charged.length > 0 || grant.ended === 'revoked' || grantHeld(books, grant) > 0n
    const told = shown.find((one) => one.id === grant.id)
    if (grant.recurring !== undefined && !isUsed && (told === undefined || !isSame(grant, told)))
      grant.id = undefined
  }
  for (const told of shown) {
    if (books.grants.some((grant) => grant.id === told.id)) continue
    const alike = books.grants.filter((one) => one.id === undefined && isSame(one, told))
    const grant = alike.find((one) => grantLeft(one) === micros(told.remaining)) ?? alike[0]
    if (grant !== undefined) grant.id = told.id
  }
}

const isSame = (grant: GrantBook, told: wire.GrantView): boolean =>
  grant.kind === told.kind &&
  grant.amount === micros(told.amount) &&
  grant.priority === told.priority &&
  grant.startsAt === told.starts_at &&
  grant.expiresAt === told.expires_at
