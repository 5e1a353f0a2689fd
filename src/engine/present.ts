/** The engine's way out: kernel values become what crosses HTTP. It formats; it decides nothing. */
import { type ErrorCode, SluiceError } from '../errors.ts'
import { type Granted, grantAt, type Shown } from '../kernel/account.ts'
import type { Charged, Decided, Refunded, Released } from '../kernel/answers.ts'
import type { GrantCell, KeyCell, Override, PolicyCell, RequestCell } from '../kernel/cells.ts'
import { inForce } from '../kernel/decide.ts'
import type { Fault } from '../kernel/faults.ts'
import { owed } from '../ledger/books.ts'
import {
  type Entry,
  type LimitLine,
  readEntry,
  readPrivate,
  type Split,
  type StoredEntry,
} from '../ledger/entries.ts'
import type { Grant, Subject } from '../ledger/grants.ts'
import type { Quantities } from '../ledger/price.ts'
import { add, formatMicros, type Micros, type Millis } from '../units.ts'
import type * as wire from '../wire.ts'
import type { RequestStanding } from './contract.ts'

/** An answer while it is put together. */
type Unsealed<T> = { -readonly [name in keyof T]: T[name] }

// --- decisions and charges

/** Optional fields are assigned, not spread: spreading made the answers of a pair cost 19 µs of CPU, where they now cost 6. */
export function decisionAnswer(decided: Decided): wire.DecisionAnswer {
  const { body, advice, subject } = decided
  const answer: Unsealed<wire.DecisionAnswer> = {
    request_id: decided.requestId,
    outcome: body.outcome,
    reason: body.reason,
    cost: formatMicros(body.cost),
    granted: formatMicros(body.granted),
    from: shares(body.from),
    expires_at: body.expires_at,
    limits: body.limits.map((line) => limit(line, subject)),
    policy_version: body.policy,
    decided_at: decided.decidedAt,
    state: decided.state,
    replayed: decided.replayed,
  }
  if (body.granted_estimate !== undefined) answer.granted_estimate = formatQuantities(body.granted_estimate)
  if (body.outcome === 'wait' && advice?.waitUntilAt !== undefined)
    answer.retry_after_ms = advice.waitUntilAt - decided.decidedAt
  if (advice !== undefined && Object.keys(advice).length > 0) answer.unblock = unblock(advice)
  if (decided.dryRun === true) answer.dry_run = true
  return answer
}

function unblock(advice: NonNullable<Decided['advice']>): wire.Unblock {
  return {
    ...(advice.waitUntilAt === undefined ? {} : { wait_until: advice.waitUntilAt }),
    ...(advice.atLatest === undefined ? {} : { at_latest: advice.atLatest }),
    ...(advice.credits === undefined ? {} : { credits: formatMicros(advice.credits) }),
    ...(advice.atMost === undefined ? {} : { at_most: formatMicros(advice.atMost) }),
  }
}

export function limit(line: LimitLine, subject: Subject): wire.Limit {
  const [kind, name, by, unit, most, used, held, remaining, resetsAt] = line
  const told = unit === 'requests' || unit === 'holds' ? String : formatMicros
  const shown: Unsealed<wire.Limit> = {
    kind,
    name,
    unit,
    limit: told(most),
    used: told(used),
    held: told(held),
    remaining: told(remaining),
  }
  const value = by === null ? undefined : subject[by]
  if (by !== null) shown.by = by
  if (value !== undefined) shown.subject = value
  if (resetsAt !== null) shown.resets_at = resetsAt
  return shown
}

const shares = (split: Split): wire.Share[] =>
  split.map(([source, amount]) => ({ source, amount: formatMicros(amount) }))

export function formatQuantities(quantities: Quantities): wire.Quantities {
  return Object.fromEntries(Object.entries(quantities).map(([name, micros]) => [name, formatMicros(micros)]))
}

export function chargeAnswer(charged: Charged): wire.ChargeAnswer {
  return {
    request_id: charged.requestId,
    state: charged.state,
    charged: formatMicros(charged.charged),
    from: shares(charged.cover),
    returned: formatMicros(charged.returned),
    absorbed: formatMicros(sum(charged.cover, 'absorbed')),
    debt: formatMicros(sum(charged.cover, 'debt')),
    ...(charged.unpriced.length === 0 ? {} : { unpriced: charged.unpriced }),
    replayed: charged.replayed,
  }
}

function sum(split: Split, source: string): Micros {
  let total = 0
  for (const [name, amount] of split) if (name === source) total = add(total, amount)
  return total
}

export function releaseAnswer(released: Released): wire.ReleaseAnswer {
  const { requestId, state, returned, replayed } = released
  return { request_id: requestId, state, returned: formatMicros(returned), replayed }
}

export function refundAnswer(refunded: Refunded): wire.RefundAnswer {
  return {
    request_id: refunded.requestId,
    refund_id: refunded.refundId,
    refunded: formatMicros(refunded.refunded),
    to: shares(refunded.to),
    charged: formatMicros(refunded.charged),
    replayed: refunded.replayed,
  }
}

// --- accounts and grants

/** `bound` is the subject that the reader stands for: grants that are only for others are none of theirs. */
export function accountView(shown: Shown, bound: Subject = {}): wire.AccountView {
  const { account, limits, nowAt } = shown
  const grants = account.grants.filter((grant) => !isOnlyForOthers(grant, bound))
  const overage = limits.find(([kind]) => kind === 'overage')
  const live = grants.filter((grant) => grant.ended === undefined && grant.startsAt <= nowAt)
  const total = (of: (grant: Grant) => Micros, grants: readonly Grant[]): Micros =>
    grants.reduce((all, grant) => add(all, of(grant)), 0)
  return {
    id: account.id,
    plan: account.plan,
    status: account.status,
    time_zone: account.zone,
    anchor_at: account.anchorAt,
    metadata: account.metadata,
    created_at: account.createdAt,
    revision: account.revision,
    open_holds: account.openHolds,
    credits: {
      available: formatMicros(total((grant) => grant.remaining - grant.held, live)),
      held: formatMicros(total((grant) => grant.held, grants)),
      debt: formatMicros(owed(account.books)),
      grants: grants.map((grant) => grantView(grant, nowAt)),
    },
    allowances: allowances(shown),
    overage: overage === undefined ? null : limit(overage, shown.subject),
    limits: limits
      .filter(([kind]) => kind === 'rate' || kind === 'concurrency' || kind === 'budget')
      .map((line) => limit(line, shown.subject)),
    overrides: overrides(shown),
  }
}

function isOnlyForOthers({ subjects }: Grant, bound: Subject): boolean {
  const scope = new Map(Object.entries(subjects ?? {}))
  return Object.entries(bound).some(([dimension, value]) => scope.get(dimension)?.includes(value) === false)
}

function allowances(shown: Shown): wire.AllowanceView[] {
  const views: { name: string; by?: string; subject?: string; windows: wire.WindowView[] }[] = []
  for (const line of shown.limits) {
    if (line[0] !== 'allowance') continue
    const [name, window] = line[1].split('/') as [string, string]
    let view = views.find((one) => one.name === name)
    if (view === undefined) {
      const { by, subject } = limit(line, shown.subject)
      view = {
        name,
        ...(by === undefined ? {} : { by }),
        ...(subject === undefined ? {} : { subject }),
        windows: [],
      }
      views.push(view)
    }
    const { limit: most, used, held, remaining, resets_at } = limit(line, shown.subject)
    view.windows.push({
      name: window,
      limit: most,
      used,
      held,
      remaining,
      ...(resets_at === undefined ? {} : { resets_at }),
    })
  }
  return views
}

function overrides(shown: Shown): wire.OverrideView[] {
  const own = overrideViews(shown.account.overrides, shown.nowAt)
  const subjects = Object.entries(shown.subjects).flatMap(([by, cell]) =>
    overrideViews(cell.overrides, shown.nowAt).map((view) => ({ ...view, by, subject: cell.value })),
  )
  return [...own, ...subjects]
}

export function overrideViews(all: Readonly<Record<string, Override>>, nowAt: Millis): wire.OverrideView[] {
  return Object.entries(all)
    .filter(([, override]) => inForce(override, nowAt))
    .map(([name, override]) => ({
      name,
      limit: formatMicros(override.limit),
      until_at: override.untilAt,
      reason: override.reason,
    }))
}

export function grantView(grant: Grant, nowAt: Millis): wire.GrantView {
  return {
    id: grant.id,
    kind: grant.kind,
    amount: formatMicros(grant.amount),
    remaining: formatMicros(grant.remaining),
    held: formatMicros(grant.held),
    priority: grant.priority,
    starts_at: grant.startsAt,
    expires_at: grant.expiresAt,
    ...(grant.features === undefined ? {} : { features: grant.features }),
    ...(grant.subjects === undefined ? {} : { subjects: grant.subjects }),
    status: grantStatus(grant, nowAt),
  }
}

function grantStatus(grant: Grant, nowAt: Millis): wire.GrantView['status'] {
  if (grant.ended !== undefined) return grant.ended
  if (grant.startsAt > nowAt) return 'pending'
  return grant.remaining === 0 ? 'spent' : 'active'
}

export const grantAnswer = (granted: Granted): wire.GrantAnswer => ({
  ...grantView(granted.grant, granted.nowAt),
  repaid: formatMicros(granted.repaid),
  replayed: granted.replayed,
})

export function grantCellView(shown: Shown, cell: GrantCell): wire.GrantView {
  return grantView(grantAt(shown.account, cell, shown.nowAt), shown.nowAt)
}

export function holdView(request: RequestCell): wire.HoldView {
  const hold = request.hold
  return {
    request_id: request.id,
    feature: request.feature,
    subject: request.subject,
    held: formatMicros(hold?.granted ?? 0),
    from: shares((hold?.parts ?? []).map((part) => [part.source, part.amount] as const)),
    reserved_at: hold?.reservedAt ?? request.createdAt,
    expires_at: request.expiresAt ?? 0,
  }
}

export const requestStanding = (account: string, request: RequestCell): RequestStanding => ({
  account,
  request_id: request.id,
  state: request.state,
  feature: request.feature,
  subject: request.subject,
  attributes: request.attributes,
  created_at: request.createdAt,
  expires_at: request.expiresAt,
  step: request.step,
  note: request.note,
})

export const keyView = (cell: KeyCell): wire.KeyView => ({
  id: cell.id,
  role: cell.role,
  ...(cell.account === undefined ? {} : { account: cell.account }),
  ...(cell.subject === undefined ? {} : { subject: cell.subject }),
  created_at: cell.createdAt,
  expires_at: cell.expiresAt,
  revoked_at: cell.revokedAt,
})

export const policyVersionView = (cell: PolicyCell, active: number): wire.PolicyVersionView => ({
  version: cell.version,
  published_at: cell.at,
  actor: cell.actor,
  active: cell.version === active,
})

// --- entries

/** Fields of a body that are amounts or quantities of µ; each is told as a decimal string. */
const AMOUNTS = new Set(['cost', 'granted', 'returned', 'amount', 'total', 'threshold', 'left'])
const HEAD = new Set(['v', 'seq', 'kind', 'at', 'recorded_at', 'actor', 'request', 'previous', 'private'])

export function entryView(account: string, stored: StoredEntry): wire.EntryView {
  const entry = readEntry(stored)
  const person = readPrivate(stored)
  return {
    id: `${account}/${entry.seq}`,
    account,
    seq: entry.seq,
    kind: entry.kind,
    at: entry.at,
    recorded_at: entry.recorded_at ?? entry.at,
    actor: entry.actor,
    ...(entry.request === undefined ? {} : { request: entry.request }),
    ...(entry.previous === undefined ? {} : { previous: `${account}/${entry.previous}` }),
    hash: stored.hash,
    ...(person === null
      ? {}
      : {
          subject: person.subject,
          ...(person.attributes === undefined ? {} : { attributes: person.attributes }),
        }),
    ...(person === null && entry.private !== undefined ? { erased: true as const } : {}),
    body: entryBody(entry, person?.subject ?? {}),
  }
}

function entryBody(entry: Entry, subject: Subject): Record<string, unknown> {
  const body: Record<string, unknown> = {}
  for (const [name, value] of Object.entries(entry))
    if (!HEAD.has(name)) body[name] = bodyField(name, value, subject)
  return body
}

function bodyField(name: string, value: unknown, subject: Subject): unknown {
  if (AMOUNTS.has(name) && typeof value === 'number') return formatMicros(value)
  if (name === 'from' && typeof value === 'string') return value
  switch (name) {
    case 'estimate':
    case 'granted_estimate':
    case 'quantities':
      return formatQuantities(value as Quantities)
    case 'from':
    case 'cover':
      return shares(value as Split)
    case 'limits':
      return (value as readonly LimitLine[]).map((line) => ({
        ...limit(line, subject),
        took: limit([...line.slice(0, 5), line[9], 0, 0, null, 0] as unknown as LimitLine, subject).used,
      }))
    case 'windows':
      return (value as readonly [string, string | null, Millis, Micros][]).map(
        ([key, by, startAt, amount]) => ({
          name: key,
          ...(by === null ? {} : { by }),
          start_at: startAt,
          amount: formatMicros(amount),
        }),
      )
    case 'detail':
      return Object.fromEntries(
        Object.entries(value as object).map(([key, inner]) => [
          key,
          AMOUNTS.has(key) && typeof inner === 'number' ? formatMicros(inner) : inner,
        ]),
      )
    default:
      return value
  }
}

// --- faults

/** A fault of the kernel as the error that callers see. */
export function errorOf(fault: Fault): SluiceError {
  return new SluiceError(fault.code satisfies ErrorCode, fault.message, {
    ...(fault.path === undefined ? {} : { path: fault.path }),
    ...(fault.remedy === undefined ? {} : { remedy: fault.remedy }),
    ...(fault.retryAfterMs === undefined ? {} : { retryAfterMs: fault.retryAfterMs }),
    ...(fault.first === undefined ? {} : { first: firstAnswer(fault.first) }),
  })
}

/** A conflict carries the first answer, whichever kind it was. */
function firstAnswer(first: unknown): unknown {
  if (typeof first !== 'object' || first === null) return first
  if ('body' in first) return decisionAnswer(first as Decided)
  if ('cover' in first) return chargeAnswer(first as Charged)
  if ('to' in first) return refundAnswer(first as Refunded)
  if ('grant' in first) return grantAnswer(first as Granted)
  return 'account' in first ? accountView(first as Shown) : first
}
