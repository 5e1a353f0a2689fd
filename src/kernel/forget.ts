/** Subjects that are idle leave the cells; a person who is to be forgotten leaves the entries, too, and the chain stays whole. */

import { withoutPerson } from '../ledger/audit.ts'
import { advance } from './advance.ts'
import type { Cells, Part, RequestCell, SubjectCell } from './cells.ts'
import { keepRetained } from './checkpoint.ts'
import { namesOf, pruneCounters } from './counters.ts'
import { effectiveRate, inForce } from './decide.ts'
import { type Context, copyRequest, type Draft, onAccount, type StepEnv, type StepOutcome } from './draft.ts'
import { fail, type Reply } from './faults.ts'
import { rateIsIdle } from './rates.ts'

export interface SubjectName {
  readonly dimension: string
  readonly value: string
}

/** Deletes those of these subjects' cells in which nothing counts any more; that also frees their place under a bound. */
export function dropIdleSubjects(
  cells: Cells,
  env: StepEnv,
  context: Context,
  id: string,
  subjects: readonly SubjectName[],
): StepOutcome<Reply<{ readonly dropped: number }>> {
  return onAccount(cells, env, context, id, (draft) => {
    advance(draft)
    const idle = subjects.filter(
      ({ dimension, value }) =>
        draft.subjectExists(dimension, value) && isIdle(draft, draft.subject(dimension, value)),
    )
    for (const { dimension, value } of idle) {
      const cell = draft.subject(dimension, value)
      draft.prune(cell.counters, cell)
      draft.dropSubject(dimension, value)
    }
    return { result: { dropped: idle.length }, keep: idle.length > 0 }
  })
}

function isIdle(draft: Draft, cell: SubjectCell): boolean {
  const counters = { ...cell.counters }
  pruneCounters(counters, draft.plan, draft.nowAt)
  if (Object.keys(counters.windows).length > 0 || Object.keys(counters.concurrency).length > 0) return false
  if (Object.values(cell.overrides).some((override) => inForce(override, draft.nowAt))) return false
  const rates = draft.plan === undefined ? undefined : namesOf(draft.plan).rates
  // An exception of the whole account holds for its subjects: a lower limit counts for longer.
  const question = { nowAt: draft.nowAt, account: draft.account, subjects: { [cell.dimension]: cell } }
  return Object.entries(counters.rates).every(([key, state]) => {
    const guard = rates?.get(key)
    return guard === undefined || rateIsIdle(effectiveRate(guard, question), state, draft.nowAt)
  })
}

export interface EraseOp extends SubjectName {
  readonly account: string
  /** Entries and requests that name the person, as found. */
  readonly seqs: readonly number[]
  readonly requestIds: readonly string[]
}

/** Removes a person from entries, closed requests and cells. What is still open must be ended first. */
export function eraseSubject(
  cells: Cells,
  env: StepEnv,
  context: Context,
  op: EraseOp,
): StepOutcome<Reply<{ readonly entries: number }>> {
  return onAccount(cells, env, context, op.account, (draft) => {
    advance(draft)
    for (const id of op.requestIds) {
      const request = draft.request(id)
      if (request !== null) draft.keep(anonymous(request))
    }
    const nothing = op.seqs.length === 0 && op.requestIds.length === 0
    const retained = retainedWithout(draft, op)
    if (nothing && retained === undefined && !draft.subjectExists(op.dimension, op.value))
      return { result: { entries: 0 }, keep: false }
    refuseWhereHeld(draft.subject(op.dimension, op.value))
    draft.dropSubject(op.dimension, op.value)
    const { account } = draft
    // A checkpoint's state names everyone who counted when it was written.
    draft.erased = account.checkpoint === undefined ? [...op.seqs] : [...op.seqs, account.checkpoint]
    delete account.checkpoint
    if (retained !== undefined) keepRetained(draft, retained.before, retained.head, retained.state)
    account.erased = draft.change('erased', {
      dimension: op.dimension,
      entries: op.seqs.length,
      requests: op.requestIds.length,
    })
    return { result: { entries: op.seqs.length }, keep: true }
  })
}

/** What stood when older entries were let go names people too, and there are no entries to work it out from again. */
function retainedWithout(draft: Draft, { dimension, value }: SubjectName) {
  const { retained } = draft.account
  if (retained === undefined) return undefined
  const { entry, person } = draft.entry(retained.seq)
  const { state } = person ?? {}
  if (state === undefined || entry.kind !== 'change') return undefined
  const without = withoutPerson(state, dimension, value)
  if (JSON.stringify(without) === JSON.stringify(state)) return undefined
  const { as_of, hash } = entry.detail as { as_of: number; hash: string }
  return { before: retained.before, head: { seq: as_of, hash }, state: without }
}

/** A request that was reserved after the person's requests were looked up still counts in the cell. */
function refuseWhereHeld(cell: SubjectCell): void {
  const { windows, concurrency } = cell.counters
  const held = Object.values(windows).some((window) => window.held > 0)
  if (held || Object.values(concurrency).some((ends) => ends.length > 0)) refuseOpen('a request')
}

function refuseOpen(what: string): never {
  fail('conflict', `${what} of this subject is still open`, {
    path: '/value',
    remedy: 'settle or release it, or wait for its end',
  })
}

function anonymous(known: RequestCell): RequestCell {
  if (known.state === 'open') refuseOpen(`request ${known.id}`)
  const request = copyRequest(known)
  request.subject = {}
  request.attributes = {}
  request.salt = ''
  request.meanings = {}
  if (request.note !== undefined) request.note = undefined
  if (request.charge !== undefined) {
    request.charge = {
      ...request.charge,
      // The person's own counters are gone, and with them what a refund could give back to.
      parts: request.charge.parts.map(withoutWindows),
      guards: request.charge.guards.filter((guard) => guard.by === undefined),
    }
  }
  return request
}

function withoutWindows(part: Part): Part {
  return part.by === undefined ? part : { source: part.source, amount: part.amount }
}
