/** Accounts: made, changed, given exceptions, given and taken credits, shown. */
import { emptyBooks } from '../ledger/books.ts'
import { emptyHead, type LimitLine } from '../ledger/entries.ts'
import type { Grant, GrantKind, Subject } from '../ledger/grants.ts'
import { EVERY_FEATURE } from '../ledger/grants.ts'
import { MICROS_PER_UNIT, type Micros, type Millis } from '../units.ts'
import { advance, beginTerms } from './advance.ts'
import {
  type AccountCell,
  type AccountStatus,
  CELL_FORMAT,
  type Cells,
  type GrantCell,
  type Override,
  type SubjectCell,
} from './cells.ts'
import { namesOf } from './counters.ts'
import { inForce, standing } from './decide.ts'
import {
  type Context,
  type Draft,
  dropSpentGrants,
  emptyCounters,
  onAccount,
  type StepEnv,
  type StepOutcome,
  UNKNOWN_STEPS,
} from './draft.ts'
import { fail, type Reply } from './faults.ts'
import { endGrant, issueGrant, requireRoomForGrant, requireRoomToIssue, startRecurrences } from './grants.ts'
import { subjectCells } from './hold.ts'
import { meaningHash } from './meaning.ts'
import { MAX_CONCURRENCY, type Plan } from './plan.ts'

export interface NewAccount {
  readonly id: string
  readonly plan: string
  readonly zone: string
  readonly anchorAt: Millis | undefined
  readonly metadata: Readonly<Record<string, string>>
  readonly meaning: string
}

/** What an account shows: its cell brought to now, the subject's cells, and each limit's line. */
export interface Shown {
  readonly account: AccountCell
  readonly subject: Subject
  readonly subjects: Readonly<Record<string, SubjectCell>>
  readonly plan: Plan | undefined
  readonly limits: readonly LimitLine[]
  readonly nowAt: Millis
}

/** The account that an unknown id's first request makes, where the policy names a default plan. */
export function openAccount(env: StepEnv, context: Context, id: string): AccountCell | undefined {
  const { defaultPlan } = env.policy.active
  if (defaultPlan === undefined) return undefined
  return newAccount(env, context, {
    id,
    plan: defaultPlan,
    zone: 'UTC',
    anchorAt: undefined,
    metadata: {},
    meaning: '',
  })
}

function newAccount(env: StepEnv, context: Context, made: NewAccount): AccountCell {
  return {
    v: CELL_FORMAT,
    id: made.id,
    plan: made.plan,
    status: 'active',
    zone: made.zone,
    anchorAt: made.anchorAt ?? env.now,
    anchored: made.anchorAt !== undefined,
    metadata: made.metadata,
    createdAt: env.now,
    meaning: made.meaning === '' ? '' : context.sha256(made.meaning),
    revision: 1,
    lastAt: env.now,
    head: emptyHead(made.id, context.sha256),
    counters: emptyCounters(),
    grants: [],
    recurrences: {},
    issuedCount: 0,
    books: emptyBooks(),
    subjectCounts: {},
    overrides: {},
    lowSteps: UNKNOWN_STEPS,
    openHolds: 0,
    dueAt: null,
  }
}

export function createAccount(
  cells: Cells,
  env: StepEnv,
  context: Context,
  made: NewAccount,
): StepOutcome<Reply<Shown>> {
  let fresh = false
  return onAccount(
    cells,
    env,
    context,
    made.id,
    (draft) => {
      if (!fresh && draft.account.meaning !== context.sha256(made.meaning)) {
        fail('conflict', `account ${made.id} exists already`, {
          path: '/id',
          remedy: 'use another id, or change it with PATCH',
          first: show(draft, {}),
        })
      }
      requirePlan(draft, draft.account.plan, '/plan')
      advance(draft)
      return { result: show(draft, {}), keep: fresh }
    },
    () => {
      fresh = true
      return newAccount(env, context, made)
    },
  )
}

function requirePlan(draft: Draft, name: string, path: string): void {
  if (draft.policy.plans.has(name)) return
  if (draft.policy.version === 0)
    fail('policy_missing', 'no policy has been published yet', {
      remedy: 'publish one: PUT /v1/policy, or serve --policy FILE',
    })
  fail('plan_unknown', `the policy has no plan ${name}`, {
    path,
    remedy: `one of: ${[...draft.policy.plans.keys()].slice(0, 20).join(', ')}`,
  })
}

/** The account as it stands now, without writing. */
export function showAccount(
  cells: Cells,
  env: StepEnv,
  context: Context,
  id: string,
  subject: Subject,
): StepOutcome<Reply<Shown>> {
  // An account that has seen a later instant is shown as it stood then: looking at it is how one finds out.
  const known = cells.get('account') as AccountCell | null | undefined
  const now = Math.max(env.now, known?.lastAt ?? 0)
  return onAccount(cells, { ...env, now }, context, id, (draft) => {
    advance(draft)
    return { result: show(draft, subject), keep: false }
  })
}

/** Brings the account to now and writes what that changed: what the sweeps call. */
export function sweepAccount(
  cells: Cells,
  env: StepEnv,
  context: Context,
  id: string,
): StepOutcome<Reply<{ readonly closed: number }>> {
  return onAccount(cells, env, context, id, (draft) => {
    const { openHolds, dueAt, head, recurrences } = draft.account
    advance(draft)
    const { account } = draft
    const changed =
      account.head.seq !== head.seq || account.dueAt !== dueAt || account.recurrences !== recurrences
    return { result: { closed: openHolds - draft.account.openHolds }, keep: changed }
  })
}

export function show(draft: Draft, subject: Subject): Shown {
  const { account, plan, nowAt } = draft
  // What is shown is what a step would keep.
  dropSpentGrants(account)
  const subjects = plan === undefined ? {} : subjectCells(draft, plan, subject)
  const limits =
    plan === undefined
      ? []
      : standing({
          nowAt,
          plan,
          feature: EVERY_FEATURE,
          subject,
          account,
          subjects,
          cost: 0,
          floor: undefined,
          quantities: undefined,
          line: undefined,
          least: undefined,
          base: undefined,
        })
  return { account, subject, subjects, plan, limits, nowAt }
}

export interface AccountChange {
  readonly plan?: string
  readonly status?: AccountStatus
  readonly zone?: string
  /** The whole of it, after merging. */
  readonly metadata?: (before: Readonly<Record<string, string>>) => Readonly<Record<string, string>>
}

export function patchAccount(
  cells: Cells,
  env: StepEnv,
  context: Context,
  id: string,
  change: AccountChange,
  ifRevision: number | undefined,
): StepOutcome<Reply<Shown>> {
  return onAccount(cells, env, context, id, (draft) => {
    advance(draft)
    const { account } = draft
    const metadata = change.metadata?.(account.metadata) ?? account.metadata
    if (isSame(account, change, metadata)) return { result: show(draft, {}), keep: false }
    requireRevision(draft, ifRevision)
    if (change.status !== undefined && change.status !== account.status) {
      draft.change('status', { from: account.status, to: change.status })
      account.status = change.status
    }
    if (change.zone !== undefined && change.zone !== account.zone) {
      draft.change('zone', { from: account.zone, to: change.zone })
      account.zone = change.zone
      beginTerms(draft)
    }
    if (JSON.stringify(metadata) !== JSON.stringify(account.metadata)) {
      draft.change('metadata', { to: metadata })
      account.metadata = metadata
    }
    if (change.plan !== undefined && change.plan !== account.plan) changePlan(draft, change.plan)
    account.revision += 1
    return { result: show(draft, {}), keep: true }
  })
}

/** Nothing would change: it has been done before, and a revision that has passed since refuses no repeat (RFC 9110, 13.1.1). */
function isSame(
  account: AccountCell,
  change: AccountChange,
  metadata: Readonly<Record<string, string>>,
): boolean {
  const { status = account.status, zone = account.zone, plan = account.plan } = change
  return (
    status === account.status &&
    zone === account.zone &&
    plan === account.plan &&
    JSON.stringify(metadata) === JSON.stringify(account.metadata)
  )
}

/** The old plan's grants stop recurring and run to their end; the new plan's first are issued now. Nothing is prorated. */
function changePlan(draft: Draft, plan: string): void {
  requirePlan(draft, plan, '/plan')
  draft.change('plan', { from: draft.account.plan, to: plan })
  draft.account.plan = plan
  beginTerms(draft)
  draft.account.lowSteps = UNKNOWN_STEPS
  startRecurrences(draft, draft.nowAt)
}

function requireRevision(draft: Draft, ifRevision: number | undefined): void {
  if (ifRevision === undefined || ifRevision === draft.account.revision) return
  fail('precondition_failed', `the account is at revision ${draft.account.revision}`, {
    path: '/if-match',
    remedy: 'read the account again and repeat the change on what it says',
  })
}

export interface OverrideOp {
  readonly subject: { readonly dimension: string; readonly value: string } | undefined
  readonly overrides: readonly {
    readonly name: string
    readonly limitMicros: Micros | null
    readonly untilAt: Millis | null
  }[]
  readonly reason: string
}

/** Replaces limits by name for the account or one of its subjects; null takes an override away. */
export function overrideLimits(
  cells: Cells,
  env: StepEnv,
  context: Context,
  id: string,
  op: OverrideOp,
  ifRevision: number | undefined,
): StepOutcome<Reply<Shown>> {
  return onAccount(cells, env, context, id, (draft) => {
    advance(draft)
    const { subject } = op
    const holder = subject === undefined ? draft.account : draft.touch(subject.dimension, subject.value)
    let next = Object.fromEntries(
      Object.entries(holder.overrides).filter(([, override]) => inForce(override, draft.nowAt)),
    )
    op.overrides.forEach(({ name, limitMicros, untilAt }, place) => {
      // An exception that stands may be taken away whatever the plan has become.
      if (limitMicros !== null || !Object.hasOwn(next, name))
        requireLimit(draft, name, subject?.dimension, `/overrides/${place}/name`)
      requireCountable(draft, name, limitMicros, `/overrides/${place}/limit`)
      if (limitMicros !== null && untilAt !== null && untilAt <= draft.nowAt)
        fail('invalid', `the exception to ${name} would end before it counts`, {
          path: `/overrides/${place}/until_at`,
          remedy: 'send an instant after now, or leave it out',
        })
      const { [name]: _, ...others } = next
      const override: Override | undefined =
        limitMicros === null ? undefined : { limit: limitMicros, untilAt, reason: op.reason }
      next = override === undefined ? others : { ...others, [name]: override }
    })
    const same = JSON.stringify(next) === JSON.stringify(holder.overrides)
    const told = { [subject?.dimension ?? '']: subject?.value ?? '' }
    const shown = subject === undefined ? {} : told
    if (same) return { result: show(draft, shown), keep: false }
    requireRevision(draft, ifRevision)
    holder.overrides = next
    const detail = {
      by: subject?.dimension,
      overrides: op.overrides.map((one) => [one.name, one.limitMicros, one.untilAt]),
      reason: op.reason,
    }
    draft.change('override', detail, subject === undefined ? {} : { person: { subject: told } })
    draft.account.revision += 1
    return { result: show(draft, shown), keep: true }
  })
}

function requireLimit(draft: Draft, name: string, dimension: string | undefined, path: string): void {
  const { plan } = draft
  const known = plan === undefined ? undefined : namesOf(plan)
  const guard = known?.guards.get(name)
  const allowance = plan?.waterfall.find(
    (source) => source.kind === 'allowance' && source.windows.some((window) => window.key === name),
  )
  const by = guard?.by ?? (allowance?.kind === 'allowance' ? allowance.by : undefined)
  const exists = guard !== undefined || known?.rules.has(name) === true
  if (exists && (dimension === undefined || dimension === by)) return
  const names = [
    ...(known?.guards.keys() ?? []),
    ...[...(known?.rules.keys() ?? [])].filter((key) => known?.guards.has(key) === false),
  ]
  fail('invalid', exists ? `${name} is not counted by ${dimension}` : `the plan has no limit named ${name}`, {
    path,
    remedy: `one of: ${names.join(', ')}`,
  })
}

function requireCountable(draft: Draft, name: string, limit: Micros | null, path: string): void {
  const guard = draft.plan === undefined ? undefined : namesOf(draft.plan).guards.get(name)
  if (guard === undefined || limit === null) return
  const countsWhole =
    guard.kind === 'concurrency' || (guard.kind === 'rate' && guard.meter.kind === 'requests')
  if (countsWhole && limit % MICROS_PER_UNIT !== 0)
    fail('invalid', `${name} counts whole ${guard.kind === 'rate' ? 'requests' : 'holds'}`, {
      path,
      remedy: 'send a whole number',
    })
  if (guard.kind !== 'concurrency' || limit <= MAX_CONCURRENCY * MICROS_PER_UNIT) return
  fail('invalid', `${name} counts at most ${MAX_CONCURRENCY} open holds`, {
    path,
    remedy: `send at most ${MAX_CONCURRENCY}`,
  })
}

export interface GrantOp {
  readonly account: string
  readonly id: string
  readonly kind: GrantKind
  readonly amount: Micros
  readonly priority: number | undefined
  readonly startsAt: Millis | undefined
  readonly expiresAt: Millis | null
  readonly features: readonly string[] | undefined
  readonly subjects: Readonly<Record<string, readonly string[]>> | undefined
  readonly reason: string | undefined
  readonly meaning: string
}
export interface Granted {
  readonly grant: Grant
  readonly repaid: Micros
  readonly replayed: boolean
  readonly nowAt: Millis
}

/** Issues a grant, once: a repeat tells it as it stands now. Money for an account that does not exist is a mistyped id, never a new account. */
export function grantCredits(
  cells: Cells,
  env: StepEnv,
  context: Context,
  op: GrantOp,
): StepOutcome<Reply<Granted>> {
  return onAccount(cells, env, context, op.account, (draft) => {
    advance(draft)
    const known = draft.grantCell(op.id)
    if (known !== null) {
      const first = grantNow(draft, known, true)
      if (known.meaning !== meaningHash(draft, known.salt, op.meaning)) {
        fail('conflict', `grant ${op.id} has been issued with other terms`, {
          path: '/id',
          remedy: 'send the same terms, or use a new id',
          first,
        })
      }
      return { result: first, keep: false }
    }
    if (op.expiresAt !== null && op.expiresAt <= Math.max(draft.nowAt, op.startsAt ?? 0)) {
      fail('invalid', 'the grant would end before it can be used', {
        path: '/expires_at',
        remedy: 'send an instant after now and after starts_at',
      })
    }
    const terms = {
      id: op.id,
      kind: op.kind,
      amount: op.amount,
      startsAt: op.startsAt ?? draft.nowAt,
      expiresAt: op.expiresAt,
      features: op.features,
      subjects: op.subjects,
      ...(op.priority === undefined ? {} : { priority: op.priority }),
    }
    requireRoomForGrant(draft, terms)
    requireRoomToIssue(draft, terms.amount)
    issueGrant(draft, terms, {
      from: 'issued',
      meaning: meaningHash(draft, draft.context.salt, op.meaning),
      reason: op.reason,
    })
    return { result: grantNow(draft, draft.grantCell(op.id) as GrantCell, false), keep: true }
  })
}

/** Takes back what is left of a grant; what is held from it follows when its hold ends. */
export function revokeGrant(
  cells: Cells,
  env: StepEnv,
  context: Context,
  account: string,
  id: string,
  reason: string | undefined,
): StepOutcome<Reply<Granted>> {
  return onAccount(cells, env, context, account, (draft) => {
    advance(draft)
    const known = draft.grantCell(id)
    if (known === null)
      fail('grant_unknown', `account ${account} has no grant ${id}`, {
        path: '/grant',
        remedy: 'list the account’s grants: their ids are there',
      })
    if (known.revokedSeq !== undefined) return { result: grantNow(draft, known, true), keep: false }
    const live = draft.liveGrant(id)
    const seq = draft.change('revoke', { id, reason }, { previous: known.seq })
    if (live !== undefined && live.ended === undefined) endGrant(draft, live, 'revoked', { previous: seq })
    const cell = { ...known, revokedSeq: seq }
    draft.keepGrantCell(cell)
    return { result: grantNow(draft, cell, false), keep: true }
  })
}

/** A grant by its id: as it lives, or as it was issued with nothing left. */
function grantNow(draft: Draft, cell: GrantCell, replayed: boolean): Granted {
  return {
    grant: grantAt(draft.account, cell, draft.nowAt),
    repaid: cell.repaid,
    replayed,
    nowAt: draft.nowAt,
  }
}

export function grantAt(account: AccountCell, cell: GrantCell, nowAt: Millis): Grant {
  const live = account.grants.find((grant) => grant.id === cell.id)
  if (live !== undefined) return { ...live }
  const gone = { ...cell.grant, remaining: 0, held: 0 }
  if (cell.revokedSeq !== undefined) return { ...gone, ended: 'revoked' }
  return gone.expiresAt !== null && gone.expiresAt <= nowAt ? { ...gone, ended: 'expired' } : gone
}

/** Brings an account whose last instant lies ahead of the clock back to it, with an entry that says so. */
export function repairClock(
  cells: Cells,
  env: StepEnv,
  context: Context,
  id: string,
): StepOutcome<Reply<Shown>> {
  const stored = cells.get('account') as AccountCell | null | undefined
  if (stored === undefined) return { need: ['account'] }
  const behind = stored === null || stored.lastAt <= env.now ? undefined : stored.lastAt
  const repaired = new Map(cells)
  if (stored !== null && behind !== undefined) repaired.set('account', { ...stored, lastAt: env.now })
  return onAccount(repaired, env, context, id, (draft) => {
    if (behind !== undefined) draft.change('repair', { what: 'last_instant', from: behind, to: env.now })
    return { result: show(draft, {}), keep: behind !== undefined }
  })
}
