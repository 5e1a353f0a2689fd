/**
 * The auditor's own books: lists of everything that happened, and sums over them. Nothing is kept that a list can tell, and
 * nothing is taken from the kernel. Amounts are BigInt µCU. Slow and plain on purpose.
 */
import type {
  GuardDocument,
  PlanDocument,
  PolicyDocument,
  RecurringGrantDocument,
  SourceDocument,
} from '../policy/schema.ts'
import type { Millis } from '../units.ts'
import type * as wire from '../wire.ts'
import { anchorOf, type Frame, lengthOf, type Span, spanAt, type WrittenWindow } from './calendar.ts'
import { micros, told } from './naive-prices.ts'
import { type Admission, emptyRate, type Pace, type RateBook } from './naive-rates.ts'

/** One instance of a window, from its opening to its end, with everything ever charged to it. */
export interface WindowBook extends Span {
  readonly name: string
  readonly charged: bigint[]
  /** Set where no plan had the name for a while: then the state may have gone. */
  isDoubtful?: boolean
}
export interface GrantBook {
  /** Plan grants get theirs from the first view that shows them. */
  id: string | undefined
  readonly kind: wire.GrantKind
  readonly amount: bigint
  readonly priority: number
  readonly startsAt: Millis
  readonly expiresAt: Millis | null
  readonly features: readonly string[] | undefined
  readonly subjects: Readonly<Record<string, readonly string[]>> | undefined
  /** The name of the plan's grant that it is a period of. */
  readonly recurring?: string
  /** Whether it has repaid what it can, as every grant does first. */
  hasStarted: boolean
  ended?: 'expired' | 'revoked'
  /** What left it and came back, other than by charges: positive is out. */
  /** What charges took and corrections gave back. */
  readonly charged: bigint[]
  readonly moves: {
    readonly why: 'expired' | 'revoked' | 'repaid' | 'rollover'
    readonly amount: bigint
  }[]
  /** What was asked for, where a caller did. */
  readonly asked?: wire.GrantRequest
}
export interface Part {
  readonly source: string
  readonly grant?: GrantBook
  readonly windows: readonly WindowBook[]
  /** Negative in a correction. */
  readonly amount: bigint
}
/** An amount in a window that does not pay: a budget, or the bound on what is absorbed. */
export interface Counted {
  readonly window: WindowBook
  readonly amount: bigint
}
export interface Take {
  readonly name: string
  readonly meter: string
  readonly book: RateBook
  readonly admission: Admission
}
export interface HoldBook {
  parts: readonly Part[]
  readonly budgets: Counted[]
  readonly takes: Take[]
  /** `guard` and `guard|value` of each concurrency guard that it counts in. */
  readonly places: readonly string[]
  readonly reservedAt: Millis
  expiresAt: Millis
  readonly maxLifetimeMs: Millis
  readonly onExpiry: 'release' | 'charge'
  /** What was reported so far. */
  used: { readonly cost: bigint; readonly quantities: Readonly<Record<string, bigint>> } | undefined
  /** The estimate that it stands for, where one was priced. */
  quantities: Readonly<Record<string, bigint>> | undefined
}
export interface ChargeBook {
  readonly at: Millis
  readonly parts: readonly Part[]
  readonly counted: readonly Counted[]
  /** A correction that a refund made, and no later settle. */
  readonly isRefund?: boolean
}
export interface RequestBook {
  readonly id: string
  state: wire.RequestState
  feature: string
  subject: wire.Subject
  attributes: wire.AttributesIn
  /** The policy whose prices hold for it. */
  prices: PolicyDocument
  hold?: HoldBook
  /** What rates counted of a hold that is gone, in case its charge is corrected. */
  takes?: readonly Take[]
  readonly charges: ChargeBook[]
  readonly steps: { readonly op: wire.ExtendRequest; readonly answer: wire.DecisionAnswer }[]
  reserved?: { readonly op: wire.ReserveRequest; readonly answer: wire.DecisionAnswer }
  used?: {
    readonly by: 'settle' | 'record'
    readonly op: wire.SettleRequest | wire.RecordRequest
    readonly answer: wire.ChargeAnswer
  }
  readonly refunds: Map<string, { readonly op: wire.RefundRequest; readonly answer: wire.RefundAnswer }>
}
export interface OverrideBook {
  readonly name: string
  readonly dimension: string | undefined
  readonly value: string | undefined
  readonly limit: bigint
  readonly untilAt: Millis | null
}
/** A plan's grant that comes again at `nextAt`; null where it came once. */
export interface RecurrenceBook {
  readonly name: string
  nextAt: Millis | null
  grant: GrantBook
}
export interface Books {
  policy: PolicyDocument
  plan: string
  status: wire.AccountStatus
  frame: Frame
  now: Millis
  readonly grants: GrantBook[]
  recurrences: RecurrenceBook[]
  readonly requests: Map<string, RequestBook>
  /** The last instance that opened, by `name|value`. */
  readonly windows: Map<string, WindowBook>
  readonly rates: Map<string, RateBook>
  overrides: OverrideBook[]
  readonly subjects: Map<string, Set<string>>
  /** What was charged to nobody, and forgiven. */
  readonly owed: bigint[]
  /** What grants have repaid, and what refunds found already repaid. */
  repaid: bigint
  /** Whether idle subjects may have been forgotten: then some of `subjects` take no place any more. */
  mayHaveForgotten: boolean
}

export type Allowance = Extract<SourceDocument, { readonly allowance: unknown }>
export type Budget = Extract<GuardDocument, { readonly budget: unknown }>
export type Rate = Extract<GuardDocument, { readonly rate: unknown }>

export const planOf = (books: Books): PlanDocument => books.policy.plans[books.plan] as PlanDocument
export const sum = (amounts: Iterable<bigint>): bigint => [...amounts].reduce((all, one) => all + one, 0n)
export const least = (...amounts: readonly bigint[]): bigint => amounts.reduce((a, b) => (a < b ? a : b))
export const atLeastZero = (amount: bigint): bigint => (amount > 0n ? amount : 0n)

export function matchesFeature(patterns: readonly string[] | undefined, feature: string): boolean {
  return (
    patterns === undefined ||
    patterns.some((one) => one === feature || (one.endsWith('*') && feature.startsWith(one.slice(0, -1))))
  )
}

// --- everything that is open, everything that was charged

export const openRequests = (books: Books): RequestBook[] =>
  [...books.requests.values()].filter((one) => one.hold !== undefined)
const openHolds = (books: Books): HoldBook[] => openRequests(books).map((one) => one.hold as HoldBook)

export const amountOf = (parts: readonly { readonly amount: bigint }[]): bigint =>
  sum(parts.map((part) => part.amount))
/** Amounts by source, in the order in which each first stands, as answers tell them. */
export function splitBySource(parts: readonly Part[]): wire.Share[] {
  return [...Map.groupBy(parts, (part) => part.source)].map(([source, same]) => ({
    source,
    amount: told(amountOf(same)),
  }))
}

/** Parts of one source that stand in the same windows are one. Windows that have ended are not told apart. */
export function joined(books: Books, parts: readonly Part[]): Part[] {
  const place = (part: Part): string =>
    [
      part.source,
      ...part.windows.map(({ name, startAt, endAt }) => (endAt > books.now ? `${name} ${startAt}` : '')),
    ].join()
  return [...Map.groupBy(parts, place).values()].map((same) => ({
    ...(same[0] as Part),
    amount: amountOf(same),
  }))
}

/** Dimensions that the plan counts by: only their values take places. */
function dimensionsOf(plan: PlanDocument): Set<string | undefined> {
  const counted = [...(plan.guards ?? []), ...plan.waterfall.filter((one) => 'allowance' in one)]
  return new Set([...Object.keys(plan.subjects ?? {}), ...counted.map(({ by }) => by)])
}

export function noteSubject(books: Books, dimension: string, value: string): void {
  if (!dimensionsOf(planOf(books)).has(dimension)) return
  books.subjects.getOrInsertComputed(dimension, () => new Set()).add(value)
}

export function newRequest(books: Books, id: string): RequestBook {
  return {
    id,
    state: 'none',
    feature: '',
    subject: {},
    attributes: {},
    prices: books.policy,
    charges: [],
    steps: [],
    refunds: new Map(),
  }
}

export const chargedOf = (request: RequestBook): bigint =>
  sum(request.charges.map(({ parts }) => amountOf(parts)))

/** Enters a charge wherever it counts. */
export function enter(books: Books, request: RequestBook, charge: ChargeBook): ChargeBook {
  request.charges.push(charge)
  for (const { source, grant, windows, amount } of charge.parts) {
    grant?.charged.push(amount)
    for (const window of windows) window.charged.push(amount)
    if (source === 'debt') books.owed.push(amount)
  }
  for (const { window, amount } of charge.counted) window.charged.push(amount)
  return charge
}

// --- windows

export const keyOf = (name: string, by: string | undefined, subject: wire.Subject): string =>
  `${name}|${by === undefined ? '' : subject[by]}`

/** A rate that comes to meter something else begins anew. */
export const rateKeyOf = ({ name, by, rate }: Rate, subject: wire.Subject): string =>
  keyOf(`${name}:${rate.meter}`, by, subject)

export interface FoundWindow extends WindowBook {
  readonly isOpen: boolean
  readonly opensAtUse: boolean
}

/** The instance to count in now; it becomes the stored one when something is counted in it. */
export function windowOf(
  books: Books,
  key: string,
  written: WrittenWindow,
  isAllowance = false,
): FoundWindow {
  const opensAtUse = anchorOf(written, isAllowance, books.frame) === 'first_use'
  const stored = books.windows.get(key)
  if (stored !== undefined && books.now < stored.endAt)
    return Object.assign(stored, { isOpen: true, opensAtUse })
  const span = spanAt(written, isAllowance, books.now, books.frame)
  return { name: key, charged: [], ...span, isOpen: false, opensAtUse }
}

/** Stores the instance, if it is new. */
export function open(books: Books, window: WindowBook): WindowBook {
  const stored = books.windows.get(window.name)
  if (stored !== undefined && books.now < stored.endAt) return stored
  books.windows.set(window.name, window)
  return window
}

export const windowUsed = (window: Pick<WindowBook, 'charged'>): bigint => sum(window.charged)

export function windowHeld(books: Books, window: WindowBook): bigint {
  const holds = openHolds(books)
  const parts = holds.flatMap((hold) => hold.parts.filter((part) => part.windows.includes(window)))
  const budgets = holds.flatMap((hold) => hold.budgets.filter((one) => one.window === window))
  return amountOf(parts) + amountOf(budgets)
}

export const windowRoom = (books: Books, window: WindowBook, limit: bigint): bigint =>
  atLeastZero(limit - windowUsed(window) - windowHeld(books, window))

/** Names that the plan has lost: state under them goes, at the latest when somebody looks for it again. */
export function doubtRemoved(books: Books): void {
  const plan = planOf(books)
  const allowances = plan.waterfall.flatMap((one) =>
    'allowance' in one ? one.windows.map((window) => `${one.allowance}/${window.name}`) : [],
  )
  const guards = (plan.guards ?? []).map((guard) => guard.name)
  const others = plan.waterfall.flatMap((one) => ('overage' in one ? ['overage'] : []))
  const names = new Set([
    ...guards,
    ...allowances,
    ...others,
    plan.on_shortfall === undefined ? '' : 'absorb',
  ])
  const isGone = (key: string): boolean => !names.has(key.split('|')[0] as string)
  for (const [key, window] of books.windows) if (isGone(key)) window.isDoubtful = true
  // Of what is absorbed nothing is ever held.
  if (plan.on_shortfall === undefined) books.windows.delete('absorb|')
  const rates = (plan.guards ?? []).flatMap((one) => ('rate' in one ? [`${one.name}:${one.rate.meter}`] : []))
  for (const [key, book] of books.rates)
    if (!rates.includes(key.split('|')[0] as string)) book.isDoubtful = true
}

// --- limits in force

export function limitOf(
  books: Books,
  name: string,
  by: string | undefined,
  subject: wire.Subject,
  written: bigint,
): bigint {
  return overrideOf(books, name, by, subject)?.limit ?? written
}

/** A subject's own exception goes before the account's. */
function overrideOf(
  books: Books,
  name: string,
  by: string | undefined,
  subject: wire.Subject,
): OverrideBook | undefined {
  const inForce = books.overrides.filter(
    (one) => one.name === name && (one.untilAt === null || books.now < one.untilAt),
  )
  const own = inForce.find(
    (one) => one.dimension !== undefined && one.dimension === by && one.value === subject[by],
  )
  const whole = inForce.find((one) => one.dimension === undefined)
  return own ?? whole
}

/** Requests are counted whole; everything else in millionths. */
export function paceOf(books: Books, guard: Rate, subject: wire.Subject): Pace {
  const { rate } = guard
  const algorithm = rate.algorithm ?? 'gcra'
  const unit = rate.meter === 'requests' ? 1_000_000n : 1n
  const written = micros(rate.limit)
  const limit = limitOf(books, guard.name, guard.by, subject, written) / unit
  const burst = rate.burst === undefined ? undefined : micros(rate.burst) / unit
  // A burst that was written stays, but never admits more at once than an exception lets through in all.
  const isReplaced = overrideOf(books, guard.name, guard.by, subject) !== undefined
  const capacity =
    burst === undefined || burst === written / unit ? limit : isReplaced ? least(burst, limit) : burst
  return { algorithm, perMs: lengthOf(rate.per) as Millis, limit, capacity }
}

export function rateBook(books: Books, key: string): RateBook {
  return books.rates.getOrInsertComputed(key, emptyRate)
}

export const holdsIn = (books: Books, place: string): bigint =>
  BigInt(openHolds(books).filter((hold) => hold.places.includes(place)).length)

// --- grants

export function grantLeft(grant: GrantBook): bigint {
  return grant.amount - sum(grant.charged) - amountOf(grant.moves)
}

export function grantHeld(books: Books, grant: GrantBook): bigint {
  return amountOf(openHolds(books).flatMap((hold) => hold.parts.filter((part) => part.grant === grant)))
}

export const grantRoom = (books: Books, grant: GrantBook): bigint =>
  grantLeft(grant) - grantHeld(books, grant)

export const isActive = (books: Books, grant: GrantBook): boolean =>
  grant.ended === undefined &&
  grant.startsAt <= books.now &&
  (grant.expiresAt === null || books.now < grant.expiresAt)

/** Active grants of these kinds that may pay for this, in the order in which they burn. */
export function burnOrder(
  books: Books,
  kinds: readonly wire.GrantKind[],
  feature: string,
  subject: wire.Subject,
): GrantBook[] {
  const matching = books.grants.filter(
    (grant) =>
      kinds.includes(grant.kind) &&
      isActive(books, grant) &&
      matchesFeature(grant.features, feature) &&
      Object.entries(grant.subjects ?? {}).every(([by, values]) => values.includes(subject[by] as string)),
  )
  const end = (grant: GrantBook): number => grant.expiresAt ?? Number.POSITIVE_INFINITY
  const order = (a: GrantBook, b: GrantBook): number =>
    a.priority - b.priority ||
    Math.sign(end(a) - end(b)) ||
    kinds.indexOf(a.kind) - kinds.indexOf(b.kind) ||
    a.startsAt - b.startsAt ||
    ((a.id as string) < (b.id as string) ? -1 : 1)
  return matching.sort((a, b) => order(a, b) || 0)
}

export function debtOf(books: Books): bigint {
  return sum(books.owed) - books.repaid
}

export type { RecurringGrantDocument }
