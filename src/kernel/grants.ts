/** Credits come in, run over, run out and are taken back. */
import { present } from '../assert.ts'
import { owed } from '../ledger/books.ts'
import type { Grant } from '../ledger/grants.ts'
import { DEFAULT_PRIORITY } from '../ledger/grants.ts'
import { formatMicros, MAX_MICROS, type Micros, type Millis } from '../units.ts'
import { type AccountCell, CELL_FORMAT } from './cells.ts'
import { namesOf } from './counters.ts'
import { type Draft, type EntryLinks, MAX_LIVE_GRANTS } from './draft.ts'
import { fail } from './faults.ts'
import type { CalendarUnit, Plan, RecurringGrant, WindowRule } from './plan.ts'
import { withField, withoutField } from './records.ts'
import { boundsAt } from './windows.ts'

export interface GrantTerms {
  readonly id: string
  readonly kind: Grant['kind']
  readonly amount: Micros
  readonly priority?: number
  readonly startsAt: Millis
  readonly expiresAt: Millis | null
  readonly features?: readonly string[] | undefined
  readonly subjects?: Readonly<Record<string, readonly string[]>> | undefined
}

export interface Issue {
  readonly links?: EntryLinks
  readonly meaning?: string
  readonly reason?: string | undefined
  /** Where its amount comes from: new, or what another grant left, or a correction. */
  readonly from: 'issued' | `grant:${string}` | null
}

/** Opens a grant and fills it; where it has no scope and the account owes, it repays first. Answers what it repaid. */
export function issueGrant(
  draft: Draft,
  terms: GrantTerms,
  issue: Issue,
): { readonly seq: number; readonly repaid: Micros } {
  const { features, subjects, ...plain } = terms
  const grant: Grant = {
    ...plain,
    priority: terms.priority ?? DEFAULT_PRIORITY,
    remaining: 0,
    held: 0,
    ...(features === undefined ? {} : { features }),
    ...(subjects === undefined ? {} : { subjects }),
  }
  draft.account.grants.push(grant)
  const detail = {
    id: grant.id,
    kind: grant.kind,
    amount: grant.amount,
    priority: grant.priority,
    starts_at: grant.startsAt,
    expires_at: grant.expiresAt,
    features,
    reason: issue.reason,
  }
  const person = subjects === undefined ? {} : { person: { subject: {}, scope: subjects } }
  const seq = draft.change('grant', detail, { ...issue.links, ...person })
  const links = { ...issue.links, previous: seq }
  if (issue.from !== null) {
    draft.transfer(
      issue.from,
      `grant:${grant.id}`,
      grant.amount,
      issue.from === 'issued' ? 'issued' : 'rollover',
      links,
    )
  }
  const repaid = grant.startsAt <= (issue.links?.at ?? draft.nowAt) ? repayDebt(draft, grant, links) : 0
  draft.keepGrantCell({
    v: CELL_FORMAT,
    id: grant.id,
    meaning: issue.meaning ?? '',
    salt: draft.context.salt,
    grant: { ...grant, remaining: grant.amount, held: 0 },
    repaid,
    seq,
  })
  return { seq, repaid }
}

/** Of the 64 KB that a cell may have, what grants may take: 256 of an ordinary length, fewer with long ids and scopes. */
const MAX_GRANTS_BYTES = 52 * 1024

/** Refuses a grant beyond what the account's cell has room for. */
export function requireRoomForGrant(draft: Draft, terms: GrantTerms): void {
  const { id, grants } = draft.account
  const remedy = 'revoke grants that are no longer needed, or issue fewer and larger ones'
  if (grants.length >= MAX_LIVE_GRANTS)
    fail('too_many', `account ${id} has ${MAX_LIVE_GRANTS} live grants`, { path: '/id', remedy })
  // Ids, features and subjects are ASCII, so that characters are bytes.
  const bytes = JSON.stringify([...grants, terms]).length
  if (bytes > MAX_GRANTS_BYTES)
    fail('too_many', `the live grants of account ${id} would take ${bytes} bytes`, {
      path: '/id',
      remedy: `${remedy}, with shorter lists of features and subjects`,
    })
}

/** What may still be issued before an account's sum of all its grants leaves the range of amounts. */
const roomToIssue = (draft: Draft): Micros => MAX_MICROS + draft.account.books.issued

/** Of the range of amounts, what callers' grants may take in all: the rest is for those that the plan brings by itself. */
const MAX_GIVEN = Math.floor(MAX_MICROS / 2)

/** Refuses a grant after which the plan's own could no longer be counted: they come by themselves, and cannot be refused. */
export function requireRoomToIssue(draft: Draft, amount: Micros): void {
  const left = Math.max(0, roomToIssue(draft) - (MAX_MICROS - MAX_GIVEN))
  if (amount <= left) return
  fail('amount_overflow', `all grants of account ${draft.account.id} would be more than can be counted`, {
    path: '/amount',
    remedy: `send at most ${formatMicros(left)}`,
  })
}

/** A grant without scope repays what the account owes before it pays for anything else. */
export function repayDebt(draft: Draft, grant: Grant, links: EntryLinks): Micros {
  if (grant.features !== undefined || grant.subjects !== undefined || grant.ended !== undefined) return 0
  const repaid = Math.min(owed(draft.account.books), grant.remaining - grant.held)
  draft.transfer(`grant:${grant.id}`, 'debt', repaid, 'repaid', links)
  return repaid
}

/** What is left of a grant is taken away, for good; what is held from it follows at the hold's exit. */
export function endGrant(draft: Draft, grant: Grant, how: 'expired' | 'revoked', links: EntryLinks): Micros {
  const loose = grant.remaining - grant.held
  draft.transfer(`grant:${grant.id}`, how, loose, how, links)
  grant.ended = how
  return loose
}

/** The first grants of a plan, at the account's beginning or at a change of plan or policy. */
export function startRecurrences(draft: Draft, at: Millis): void {
  const { account, plan } = draft
  if (plan === undefined) return
  const { recurring } = namesOf(plan)
  for (const key in account.recurrences)
    if (!recurring.has(key)) account.recurrences = withoutField(account.recurrences, key)
  for (const [key, grant] of recurring) {
    const begun = account.recurrences[key]
    if (begun === undefined) issueRecurring(draft, key, grant, at)
    else if (isToRecur(begun, grant)) {
      // It came once until now. What was given stays, and the next comes when the present period ends.
      const nextAt = boundsAt(present(grant.every, 'it recurs'), at, account).endAt
      account.recurrences = withField(account.recurrences, key, { ...begun, nextAt })
    }
  }
}

type Begun = AccountCell['recurrences'][string]
/** It came once, under an earlier policy. */
const isToRecur = (begun: Begun, { every }: RecurringGrant): boolean =>
  begun.nextAt === null && every !== undefined

/** Whether a grant of the plan has not begun in an account, or is to recur from now on. */
export function hasGrantsToBegin({ recurrences }: AccountCell, plan: Plan): boolean {
  for (const [key, grant] of namesOf(plan).recurring) {
    const begun = recurrences[key]
    if (begun === undefined || isToRecur(begun, grant)) return true
  }
  return false
}

/** Issues the grant of the period that an instant lies in. */
function issueRecurring(draft: Draft, key: string, recurring: RecurringGrant, at: Millis): void {
  const { account } = draft
  const endAt = recurring.every === undefined ? null : boundsAt(recurring.every, at, account).endAt
  const id = nextGrantId(draft)
  account.recurrences = withField(account.recurrences, key, { grantId: id, nextAt: endAt })
  issueGrant(
    draft,
    {
      id,
      kind: recurring.kind,
      // What nobody asked for must not fail: at the end of the range there is only as much as still fits.
      amount: Math.min(recurring.amount, roomToIssue(draft)),
      priority: recurring.priority,
      startsAt: at,
      expiresAt: endAt,
      features: recurring.features,
    },
    { links: { at }, from: 'issued' },
  )
}

/** Ids that Sluice gives begin with `plan:`; callers may not use them. */
export const OWN_GRANT_PREFIX = 'plan:'
function nextGrantId(draft: Draft): string {
  draft.account.issuedCount += 1
  return `${OWN_GRANT_PREFIX}${draft.account.issuedCount}`
}

/** The recurrence whose next grant is due first, if one is by now. */
export function nextRecurrence(draft: Draft): { readonly key: string; readonly at: Millis } | undefined {
  let next: { key: string; at: Millis } | undefined
  const { recurrences } = draft.account
  for (const key in recurrences) {
    const nextAt = recurrences[key]?.nextAt ?? null
    if (nextAt === null || nextAt > draft.nowAt) continue
    if (next === undefined || nextAt < next.at) next = { key, at: nextAt }
  }
  return next
}

/** The most events that one step books one by one, and how many a period has: its grant comes, and it and what rolled over end. */
const MAX_EVENTS = 100
const EVENTS_A_PERIOD = 3

/** Where more periods than this were missed, all but the last two are booked as one. */
function summaryAfter(plan: Plan): number {
  const recurring = plan.grants.filter(({ every }) => every !== undefined).length
  return Math.max(2, Math.floor(MAX_EVENTS / (EVENTS_A_PERIOD * recurring)))
}

/**
 * The period of a recurrence ends and the next begins. Long gaps are booked as one summary, as far as nothing else is due
 * that its credits could meet: `quietUntil`.
 */
export function recur(draft: Draft, key: string, at: Millis, quietUntil: Millis): void {
  const { account, plan } = draft
  const recurring = plan === undefined ? undefined : namesOf(plan).recurring.get(key)
  if (plan === undefined || recurring?.every === undefined) {
    account.recurrences = withoutField(account.recurrences, key)
    return
  }
  if (!draft.writing && skipAhead(draft, key, recurring, at, quietUntil)) return
  const missed = periodsUpTo(draft, recurring, at)
  if (missed.length <= summaryAfter(plan)) return issueRecurring(draft, key, recurring, at)
  const last = Math.min(quietUntil, nextRepayment(draft, plan, key))
  const periods = missed.slice(0, -1).findLastIndex((startAt) => startAt <= last)
  if (periods < 1) return issueRecurring(draft, key, recurring, at)
  const resumeAt = missed[periods] as Millis
  summarise(draft, recurring, at, resumeAt, periods)
  // The last two periods come in their turn, after what else is due before them.
  account.recurrences = withField(account.recurrences, key, { grantId: '', nextAt: resumeAt })
}

/** When another recurrence next repays debt. Of two with long gaps it does not matter whose grants repaid what. */
function nextRepayment(draft: Draft, plan: Plan, key: string): Millis {
  let first = Number.POSITIVE_INFINITY
  if (owed(draft.account.books) === 0) return first
  for (const [name, recurring] of namesOf(plan).recurring) {
    const nextAt = draft.account.recurrences[name]?.nextAt
    if (name === key || recurring.features !== undefined || nextAt === undefined || nextAt === null) continue
    if (periodsUpTo(draft, recurring, nextAt).length <= summaryAfter(plan)) first = Math.min(first, nextAt)
  }
  return first
}

/**
 * How many periods a look ahead counts one by one. Each costs some 13 µs of calendar, and a refusal may look at an exception
 * "until 2099": 37 s for a daily grant and the year 9999, with everybody waiting.
 */
const MAX_COUNTED = 250

/** The longest that a period may be: a calendar's are cut and stretched by daylight saving. */
function longestMs(rule: WindowRule): Millis {
  if (rule.anchor === 'first_use') return rule.lengthMs
  if (rule.anchor === 'account' && 'lengthMs' in rule.period) return rule.period.lengthMs
  const unit = 'period' in rule ? (rule.period as { unit: CalendarUnit }).unit : rule.unit
  return { hour: 2 * HOUR_MS, day: 26 * HOUR_MS, week: 170 * HOUR_MS, month: 746 * HOUR_MS }[unit]
}
const HOUR_MS = 3_600_000

/**
 * A look ahead books nothing, so that it passes over what is long: only the last two periods matter for what is there then,
 * and what those between repay, which is told too low rather than too high.
 */
function skipAhead(
  draft: Draft,
  key: string,
  recurring: RecurringGrant,
  at: Millis,
  quietUntil: Millis,
): boolean {
  const { account } = draft
  const every = present(recurring.every, 'it recurs')
  const last = boundsAt(every, Math.min(quietUntil, draft.nowAt), account)
  const resumeAt = boundsAt(every, last.startAt - 1, account).startAt
  const periods = Math.floor((resumeAt - at) / longestMs(every))
  if (periods < MAX_COUNTED) return false
  const repaid =
    recurring.features === undefined ? Math.min(owed(account.books), recurring.amount * periods) : 0
  draft.transfer('issued', 'debt', Math.min(repaid, roomToIssue(draft)), 'summary')
  account.recurrences = withField(account.recurrences, key, { grantId: '', nextAt: resumeAt })
  return true
}

/** Starts of the periods from an instant to now; of a look ahead, as many as it counts. */
function periodsUpTo(draft: Draft, recurring: RecurringGrant, at: Millis): Millis[] {
  const starts: Millis[] = []
  if (recurring.every === undefined) return starts
  const most = draft.writing ? Number.POSITIVE_INFINITY : 2 * MAX_COUNTED
  for (let start = at; start <= draft.nowAt && starts.length < most; ) {
    starts.push(start)
    start = boundsAt(recurring.every, start, draft.account).endAt
  }
  return starts
}

/**
 * Periods that nobody lived through, booked in one sum: their grants repaid what was owed, as far as they have no scope, and
 * came and went unused beyond that.
 */
function summarise(
  draft: Draft,
  recurring: RecurringGrant,
  fromAt: Millis,
  toAt: Millis,
  periods: number,
): void {
  const amount = Math.min(recurring.amount * periods, roomToIssue(draft))
  const detail = { name: recurring.name, periods, amount, from: fromAt, to: toAt }
  const seq = draft.change('recurrence', detail, { at: fromAt })
  const repaid = recurring.features === undefined ? Math.min(owed(draft.account.books), amount) : 0
  const links = { at: toAt, previous: seq }
  draft.transfer('issued', 'debt', repaid, 'summary', links)
  draft.transfer('issued', 'expired', amount - repaid, 'summary', links)
}

/** A grant's end by itself: what rolls over becomes a child that lives one period, the rest expires. */
export function expireGrant(draft: Draft, grant: Grant, at: Millis): void {
  const { account, plan } = draft
  const links = { at }
  const key = Object.keys(account.recurrences).find((name) => account.recurrences[name]?.grantId === grant.id)
  const recurring = plan === undefined || key === undefined ? undefined : namesOf(plan).recurring.get(key)
  const rolled = Math.min(grant.remaining - grant.held, recurring?.rollover ?? 0)
  if (recurring?.every !== undefined && rolled > 0) {
    const expiresAt = boundsAt(recurring.every, at, account).endAt
    const child = {
      id: nextGrantId(draft),
      kind: grant.kind,
      amount: rolled,
      priority: grant.priority,
      startsAt: at,
      expiresAt,
      features: grant.features,
    }
    issueGrant(draft, child, { links, from: `grant:${grant.id}` })
  }
  endGrant(draft, grant, 'expired', links)
}
