/**
 * One account while a step works on it: copies of the cells it touches, the entries it adds, and the closing that turns
 * both into writes. Cells are copied when first asked for, so that what the store handed out never changes.
 */

import { assert } from '../assert.ts'
import { isGrant, type LedgerAccount, posted } from '../ledger/books.ts'
import {
  type BalanceBody,
  type BalanceReason,
  type ChangeBody,
  type ChangeName,
  type ChargeBody,
  chained,
  type DecisionBody,
  ENTRY_FORMAT,
  type Entry,
  type EntryKind,
  type PrivatePart,
  readEntry,
  readPrivate,
  type Sha256,
  type StoredEntry,
  type UsageBody,
} from '../ledger/entries.ts'
import type { Grant, Subject } from '../ledger/grants.ts'
import { add, type Micros, type Millis } from '../units.ts'
import {
  type AccountCell,
  CELL_FORMAT,
  type Cell,
  type Cells,
  type Counters,
  type DueHolds,
  type GrantCell,
  grantKey,
  type Key,
  type RequestCell,
  requestKey,
  type SubjectCell,
  subjectKey,
} from './cells.ts'
import { pruneCounters } from './counters.ts'
import { FaultSignal, fail, NeedSignal, type Reply } from './faults.ts'
import type { Plan, Policy, PolicySet } from './plan.ts'
import { withField, withoutField } from './records.ts'

/** What the engine lends to a step: who asks, chance, and a hash. */
export interface Context {
  readonly actor: string
  /** Where the actor stands for one subject only, requests of others are closed to it. */
  readonly subject?: Subject | undefined
  /** Whether an estimate may name quantities that nothing prices: they cost nothing. */
  readonly isUnpricedFree?: boolean
  /** Fresh and unguessable, the same in every run of this step. */
  readonly salt: string
  readonly sha256: Sha256
}

/** What a store lends to a step; the shape of `Env` in `store.ts`. */
export interface StepEnv {
  readonly now: Millis
  readonly policy: PolicySet
}
export interface StepDone<T> {
  readonly result: T
  readonly writes: readonly { readonly key: Key; readonly cell: Cell | null }[]
  readonly entries: readonly StoredEntry[]
  readonly erase?: readonly number[]
}
export type StepOutcome<T> = StepDone<T> | { readonly need: readonly Key[] }

/** Small clock differences are clamped; more than this and the account waits for the clock or a repair. */
export const CLOCK_TOLERANCE_MS = 60_000
/** The most grants that may be live in one account. */
export const MAX_LIVE_GRANTS = 256

export interface EntryLinks {
  readonly at?: Millis | undefined
  readonly request?: string | undefined
  readonly previous?: number | undefined
  readonly person?: Omit<PrivatePart, 'salt'>
}

/** A body to be written: a field that is undefined is left out of the text. */
type Unwritten<T> = {
  readonly [name in keyof T]: object extends Pick<T, name> ? T[name] | undefined : T[name]
}
export type BodyOf = {
  readonly decision: DecisionBody
  readonly usage: Unwritten<UsageBody>
  readonly charge: Unwritten<ChargeBody>
  readonly balance: Unwritten<BalanceBody>
  readonly change: ChangeBody
}

/** A movement of credits that has been made in the cells and waits for its entry. */
export interface Move {
  readonly from: LedgerAccount
  readonly to: LedgerAccount
  readonly amount: Micros
  readonly reason: BalanceReason
}

interface SubjectSlot {
  readonly cell: SubjectCell
  /** What the cell was copied from; null where there was none. */
  readonly from: SubjectCell | null
  touched: boolean
}

export class Draft {
  readonly account: AccountCell
  readonly context: Context
  readonly env: StepEnv
  readonly nowAt: Millis
  /** Where entries go; a draft that only looks ahead writes none. */
  readonly writing: boolean
  erased: number[] | undefined
  readonly #cells: Cells
  readonly #subjects = new Map<Key, SubjectSlot>()
  #lastSubject: SubjectSlot | undefined
  #dropped: Set<Key> | undefined
  readonly #requests = new Map<Key, RequestCell>()
  #grants: Map<Key, GrantCell> | undefined
  readonly #entries: StoredEntry[] = []

  constructor(account: AccountCell, cells: Cells, env: StepEnv, context: Context, writing = true) {
    this.account = account
    this.#cells = cells
    this.env = env
    this.context = context
    this.writing = writing
    if (env.now < account.lastAt - CLOCK_TOLERANCE_MS) {
      fail('clock_behind', `account ${account.id} has seen ${account.lastAt}, the clock says ${env.now}`, {
        remedy: 'set the clock right, or repair the account if its last instant is the one that is wrong',
        retryAfterMs: account.lastAt - env.now,
      })
    }
    this.nowAt = Math.max(env.now, account.lastAt)
  }

  /** A draft on a copy of the account at a later instant, which writes nothing. */
  ahead(account: AccountCell, at: Millis): Draft {
    const draft = new Draft(account, this.#cells, { ...this.env, now: at }, this.context, false)
    for (const [key, slot] of this.#subjects)
      draft.#subjects.set(key, { ...slot, cell: copySubject(slot.cell) })
    return draft
  }

  get policy(): Policy {
    return this.env.policy.active
  }

  /** The account's plan under the policy in force; undefined where the policy has dropped it. */
  get plan(): Plan | undefined {
    return this.policy.plans.get(this.account.plan)
  }

  #fetch(key: Key): Cell | StoredEntry | DueHolds | null {
    const cell = this.#cells.get(key)
    if (cell === undefined) throw new NeedSignal([key])
    return cell
  }

  /** A subject's cell, ready to change; an empty one where none exists. It is written only once `touch`ed. */
  subject(dimension: string, value: string): SubjectCell {
    return this.#subjectSlot(dimension, value).cell
  }

  subjectExists(dimension: string, value: string): boolean {
    const slot = this.#subjectSlot(dimension, value)
    return slot.from !== null || slot.touched
  }

  touch(dimension: string, value: string): SubjectCell {
    const slot = this.#subjectSlot(dimension, value)
    if (slot.from === null && !slot.touched) {
      const { subjectCounts } = this.account
      this.account.subjectCounts = withField(subjectCounts, dimension, (subjectCounts[dimension] ?? 0) + 1)
    }
    slot.touched = true
    return slot.cell
  }

  /** A step asks for the same subject a dozen times: the last one asked for is found without making its key. */
  #subjectSlot(dimension: string, value: string): SubjectSlot {
    const last = this.#lastSubject
    if (last !== undefined && last.cell.value === value && last.cell.dimension === dimension) return last
    const key = subjectKey(dimension, value)
    let slot = this.#subjects.get(key)
    if (slot === undefined) {
      const stored = this.#fetch(key) as SubjectCell | null
      const cell = stored === null ? emptySubject(dimension, value) : copySubject(checked(stored))
      slot = { cell, from: stored, touched: false }
      this.#subjects.set(key, slot)
    }
    this.#lastSubject = slot
    return slot
  }

  /** Removes a subject's cell: it was idle, or its person is to be forgotten. */
  dropSubject(dimension: string, value: string): void {
    const slot = this.#subjectSlot(dimension, value)
    if (slot.from === null) return
    this.#dropped ??= new Set()
    this.#dropped.add(subjectKey(dimension, value))
    const { subjectCounts } = this.account
    const left = (subjectCounts[dimension] ?? 1) - 1
    this.account.subjectCounts =
      left > 0 ? withField(subjectCounts, dimension, left) : withoutField(subjectCounts, dimension)
  }

  /** Where state counted by this dimension lives, ready to change. */
  counters(by: string | undefined, subject: Subject): Counters {
    if (by === undefined) return this.account.counters
    const value = subject[by]
    assert(value !== undefined, `a part counted by ${by} has no such subject`)
    return this.touch(by, value).counters
  }

  request(id: string): RequestCell | null {
    const key = requestKey(id)
    const known = this.#requests.get(key)
    if (known !== undefined) return known
    const stored = this.#fetch(key) as RequestCell | null
    return stored === null ? null : checked(stored)
  }

  /** Puts a request's cell; what is handed in belongs to the draft from then on. */
  keep(request: RequestCell): RequestCell {
    this.#requests.set(requestKey(request.id), request)
    return request
  }

  grantCell(id: string): GrantCell | null {
    return this.#grants?.get(grantKey(id)) ?? (this.#fetch(grantKey(id)) as GrantCell | null)
  }

  keepGrantCell(cell: GrantCell): void {
    this.#grants ??= new Map()
    this.#grants.set(grantKey(cell.id), cell)
  }

  /** Open holds whose end has come, earliest first. */
  dueHolds(limit: number): DueHolds {
    return this.#fetch(`due:${limit}`) as DueHolds
  }

  /** An entry written earlier, by number. */
  entry(seq: number): { readonly entry: Entry; readonly person: PrivatePart | null } {
    const stored = this.#fetch(`entry:${seq}`) as StoredEntry | null
    assert(stored !== null, `entry ${seq} of ${this.account.id} is missing`)
    return { entry: readEntry(stored), person: readPrivate(stored) }
  }

  liveGrant(id: string): Grant | undefined {
    return this.account.grants.find((grant) => grant.id === id)
  }

  /** Adds an entry to the account's chain and answers its number. */
  append<K extends EntryKind>(kind: K, body: BodyOf[K], links: EntryLinks = {}): number {
    if (!this.writing) return 0
    const { context, nowAt } = this
    const seq = this.account.head.seq + 1
    const at = links.at ?? nowAt
    const person = links.person === undefined ? null : JSON.stringify({ salt: context.salt, ...links.person })
    const head = JSON.stringify({
      v: ENTRY_FORMAT,
      seq,
      kind,
      at,
      recorded_at: at === nowAt ? undefined : nowAt,
      actor: context.actor,
      request: links.request,
      previous: links.previous,
      private: person === null ? undefined : context.sha256(person),
    })
    // The texts are joined, since to merge the objects first takes as long again as writing them.
    const text = `${head.slice(0, -1)},${JSON.stringify(body).slice(1)}`
    const { body: whole, hash } = chained(this.account.head.hash, text, context.sha256)
    this.#entries.push({ seq, kind, body: whole, private: person, hash })
    this.account.head = { seq, hash }
    return seq
  }

  change(what: ChangeName, detail: Readonly<Record<string, unknown>>, links: EntryLinks = {}): number {
    return this.append('change', { what, detail }, links)
  }

  /** Moves credits between two ledger accounts in the cells; `book` writes the entry. */
  move(from: LedgerAccount, to: LedgerAccount, amount: Micros, reason: BalanceReason): Move {
    assert(amount > 0, `a transfer moves more than ${amount}`)
    this.account.books = posted(this.account.books, from, to, amount)
    if (isGrant(from)) this.#adjust(from, -amount)
    if (isGrant(to)) this.#adjust(to, amount)
    return { from, to, amount, reason }
  }

  #adjust(account: `grant:${string}`, amount: Micros): void {
    const grant = this.liveGrant(account.slice('grant:'.length))
    assert(grant !== undefined, `${account} is not live`)
    grant.remaining = add(grant.remaining, amount)
    assert(grant.remaining >= 0, `${account} would go below zero`)
  }

  book(moves: readonly Move[], links: EntryLinks & { readonly charge?: number } = {}): void {
    for (const { from, to, amount, reason } of moves) {
      this.append('balance', { from, to, amount, reason, charge: links.charge }, links)
    }
  }

  /** Moves and books at once. */
  transfer(
    from: LedgerAccount,
    to: LedgerAccount,
    amount: Micros,
    reason: BalanceReason,
    links: EntryLinks = {},
  ): void {
    if (amount > 0) this.book([this.move(from, to, amount, reason)], links)
  }

  /** Drops what counts no more. A window whose name the plan dropped before it ended leaves an entry. */
  prune(counters: Counters, subject?: { readonly dimension: string; readonly value: string }): void {
    const by = subject?.dimension
    for (const [window, { startAt, used }] of pruneCounters(counters, this.plan, this.nowAt)) {
      const person =
        subject === undefined ? {} : { person: { subject: { [subject.dimension]: subject.value } } }
      this.change('reset', { window, by, starts_at: startAt, used }, person)
    }
  }

  /** Everything this step changed, as writes; the account's own cell always goes along. */
  close<T>(result: T): StepDone<T> {
    noteLowBalance(this)
    dropSpentGrants(this.account)
    this.prune(this.account.counters)
    this.account.lastAt = this.nowAt
    const writes: { key: Key; cell: Cell | null }[] = [{ key: 'account', cell: this.account }]
    // `forEach`, here and where the store goes through these writes: an iterator makes an array for each entry of a map.
    this.#subjects.forEach((slot, key) => {
      if (!slot.touched || this.#dropped?.has(key)) return
      this.prune(slot.cell.counters, slot.cell)
      writes.push({ key, cell: slot.cell })
    })
    this.#dropped?.forEach((key) => void writes.push({ key, cell: null }))
    this.#requests.forEach((cell, key) => void writes.push({ key, cell }))
    this.#grants?.forEach((cell, key) => void writes.push({ key, cell }))
    const done = { result, writes, entries: this.#entries }
    return this.erased === undefined ? done : { ...done, erase: this.erased }
  }
}

/** Runs a step on one account: opens it, catches its signals, and closes it where the step wants to keep its changes. */
export function onAccount<T>(
  cells: Cells,
  env: StepEnv,
  context: Context,
  id: string,
  run: (draft: Draft) => { readonly result: T; readonly keep: boolean },
  create?: () => AccountCell | undefined,
): StepOutcome<Reply<T>> {
  return catchSignals<Reply<T>>(() => {
    const stored = cells.get('account') as AccountCell | null | undefined
    if (stored === undefined) throw new NeedSignal(['account'])
    const account = stored === null ? create?.() : copyAccount(checked(stored))
    if (account === undefined) {
      fail('account_unknown', `there is no account ${id}`, {
        path: '/account',
        remedy: 'check the id; create it, or name a default_plan in the policy',
      })
    }
    const draft = new Draft(account, cells, env, context)
    if (stored === null) noteCreation(draft)
    const { result, keep } = run(draft)
    if (!keep) return { result: { ok: result }, writes: [], entries: [] }
    const done = draft.close<Reply<T>>({ ok: result })
    if (stored !== null) account.grants = reuseGrants(account.grants, stored.grants)
    return done
  })
}

function noteCreation(draft: Draft): void {
  const { plan, zone, anchorAt, anchored, metadata } = draft.account
  draft.change('account_created', { plan, zone, anchor_at: anchored ? anchorAt : null, metadata })
}

export function catchSignals<T>(run: () => StepOutcome<T>): StepOutcome<T> {
  try {
    return run()
  } catch (signal) {
    if (signal instanceof NeedSignal) return { need: signal.keys }
    if (signal instanceof FaultSignal)
      return { result: { fault: signal.fault } as T, writes: [], entries: [] }
    throw signal
  }
}

export function checked<C extends Cell>(cell: C): C {
  if (cell.v > CELL_FORMAT) {
    fail('format_newer', `a cell has format ${cell.v}, this version of Sluice knows ${CELL_FORMAT}`, {
      remedy: 'run the newer version of Sluice',
    })
  }
  return cell
}

function emptySubject(dimension: string, value: string): SubjectCell {
  return { v: CELL_FORMAT, dimension, value, counters: emptyCounters(), overrides: {} }
}

export const emptyCounters = (): Counters => ({ windows: {}, rates: {}, concurrency: {} })

/** What is deeper than these copies is replaced, never changed, but for the grants of an account. */
function copySubject(cell: SubjectCell): SubjectCell {
  return { ...cell, counters: { ...cell.counters } }
}

export function copyAccount(cell: AccountCell): AccountCell {
  return { ...cell, counters: { ...cell.counters }, grants: cell.grants.map((grant) => ({ ...grant })) }
}

/**
 * Grants that did not change are the very objects again that they were copied from: a store keeps cells in memory, and each
 * new object in them is moved by one garbage collection after another.
 */
function reuseGrants(grants: Grant[], from: Grant[]): Grant[] {
  if (grants.length !== from.length) return grants
  let same = true
  for (let place = 0; place < grants.length; place++) {
    const [grant, before] = [grants[place] as Grant, from[place] as Grant]
    if (
      grant.id === before.id &&
      grant.remaining === before.remaining &&
      grant.held === before.held &&
      grant.ended === before.ended
    )
      grants[place] = before
    else same = false
  }
  return same ? from : grants
}

/** A copy of a request's cell that may be changed; its hold and charge are replaced, never changed. */
export function copyRequest(cell: RequestCell): RequestCell {
  return { ...cell, meanings: { ...cell.meanings }, seqs: { ...cell.seqs } }
}

/** Grants with nothing left and nothing held leave the cell; what they were stands in the ledger. */
export function dropSpentGrants(account: AccountCell): void {
  if (account.grants.some((grant) => grant.remaining === 0 && grant.held === 0)) {
    account.grants = account.grants.filter((grant) => grant.remaining > 0 || grant.held > 0)
  }
}

/** `lowSteps` before the first look under a plan. */
export const UNKNOWN_STEPS = -1

/** A threshold that credits fell to or below, or rose above again, becomes an entry. */
function noteLowBalance(draft: Draft): void {
  const thresholds = draft.plan?.lowBalanceMicros
  if (thresholds === undefined || thresholds.length === 0) return
  let left = 0
  for (const grant of draft.account.grants) {
    if (grant.ended === undefined && grant.startsAt <= draft.nowAt) left = add(left, grant.remaining)
  }
  const steps = thresholds.filter((threshold) => left <= threshold).length
  const before = draft.account.lowSteps
  if (steps === before) return
  draft.account.lowSteps = steps
  // The first look at an account, or at a plan, tells where it stands; only what happens after is a crossing.
  if (before === UNKNOWN_STEPS) return
  for (let step = before; step < steps; step++) tellCrossing(draft, thresholds[step], left, 'below')
  for (let step = before; step > steps; step--) tellCrossing(draft, thresholds[step - 1], left, 'above')
}

/** Each threshold that is crossed has an entry of its own: whoever waits for one of them finds it. */
function tellCrossing(
  draft: Draft,
  threshold: Micros | undefined,
  left: Micros,
  direction: 'below' | 'above',
): void {
  // A plan with fewer thresholds than the account had steps has nothing to tell of those.
  if (threshold !== undefined) draft.change('low_balance', { threshold, left, direction })
}
