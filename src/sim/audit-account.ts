/** Grants, revocations, changes of an account and exceptions, held against the auditor's books. */
import type * as wire from '../wire.ts'
import { answerOf, expectCode, expectSame, type Told } from './disagreement.ts'
import { type Books, doubtRemoved, type GrantBook, grantRoom, noteSubject, planOf } from './naive-books.ts'
import { emptyEnded } from './naive-exits.ts'
import { micros } from './naive-prices.ts'
import { beginGrants, repay } from './naive-time.ts'

export function granted(books: Books, op: wire.GrantRequest, told: Told<wire.GrantAnswer>): void {
  const what = `grant ${op.id}`
  const first = books.grants.find((grant) => grant.id === op.id)
  if (first !== undefined) {
    if (!isSameGrant(first, op)) return expectCode(told, 'conflict', what)
    return expectSame(answerOf(told, what).replayed, true, `${what} is a repeat`)
  }
  if (op.expires_at !== undefined && op.expires_at <= Math.max(books.now, op.starts_at ?? 0))
    return expectCode(told, 'invalid', what)
  const answer = answerOf(told, what)
  const grant = { ...termsOf(op), startsAt: op.starts_at ?? books.now, asked: op }
  books.grants.push(grant)
  const repaid = grant.startsAt <= books.now ? repay(books, grant) : 0n
  expectSame(micros(answer.repaid), repaid, `repaid by ${what}`)
  expectSame([answer.replayed, micros(answer.amount)], [false, grant.amount], what)
}

function termsOf(op: wire.GrantRequest): Omit<GrantBook, 'startsAt'> {
  const subjects = Object.entries(op.subjects ?? {}).map(([by, values]) => [by, [values].flat()])
  return {
    id: op.id,
    kind: op.kind,
    amount: micros(op.amount),
    priority: op.priority ?? 100,
    expiresAt: op.expires_at ?? null,
    features: op.features,
    subjects: op.subjects === undefined ? undefined : Object.fromEntries(subjects),
    hasStarted: false,
    charged: [],
    moves: [],
  }
}

function isSameGrant(grant: GrantBook, op: wire.GrantRequest): boolean {
  const { reason: _, ...first } = grant.asked ?? { reason: '' }
  const { reason: __, ...again } = op
  const sorted = (value: object): string => JSON.stringify(Object.entries(value).sort())
  return sorted(first) === sorted(again)
}

export function revoked(books: Books, id: string, told: Told<wire.GrantView>): void {
  const what = `revoke ${id}`
  const grant = books.grants.find((one) => one.id === id)
  if (grant === undefined && id.startsWith('plan:') && 'answer' in told) {
    // A period that came and went unseen.
    return expectSame([told.answer.remaining, told.answer.held], ['0', '0'], what)
  }
  if (grant === undefined) return expectCode(told, 'grant_unknown', what)
  const answer = answerOf(told, what)
  if (grant.ended !== undefined) return
  grant.ended = 'revoked'
  emptyEnded(books)
  expectSame(answer.status, 'revoked', what)
  expectSame(grantRoom(books, grant), 0n, 'what a revoked grant can give')
}

export function patched(books: Books, patch: wire.AccountPatch, told: Told<wire.AccountView>): void {
  answerOf(told, 'patch')
  if (patch.time_zone !== undefined) books.frame = { ...books.frame, zone: patch.time_zone }
  if (patch.status !== undefined) books.status = patch.status
  if (patch.plan === undefined || patch.plan === books.plan) return
  books.plan = patch.plan
  doubtRemoved(books)
  beginGrants(books, true)
}

export function overridden(books: Books, op: wire.OverridesRequest, told: Told<wire.AccountView>): void {
  const [dimension, value] = Object.entries(op.subject ?? {})[0] ?? [undefined, undefined]
  const isOwn = (one: Books['overrides'][number]): boolean =>
    one.dimension === dimension && one.value === value && (one.untilAt === null || books.now < one.untilAt)
  // An exception that stands may be taken away, whatever the plan has become.
  const isKnown = op.overrides.every(
    ({ name, limit }) =>
      (limit === null && books.overrides.some((one) => one.name === name && isOwn(one))) ||
      countedBy(books, name).some((by) => dimension === undefined || by === dimension),
  )
  if (!isKnown) return expectCode(told, 'invalid', 'override')
  answerOf(told, 'override')
  // Taking away what is not there leaves no trace, and so takes no place.
  const changes = op.overrides.some(
    (one) => one.limit !== null || books.overrides.some((own) => own.name === one.name && isOwn(own)),
  )
  if (changes && dimension !== undefined && value !== undefined) noteSubject(books, dimension, value)
  for (const { name, limit, until_at } of op.overrides) {
    books.overrides = books.overrides.filter(
      (one) => !(one.name === name && one.dimension === dimension && one.value === value),
    )
    if (limit !== null)
      books.overrides.push({ name, dimension, value, limit: micros(limit), untilAt: until_at ?? null })
  }
}

/** By what the plan counts the limit of this name; empty where it has none. */
function countedBy(books: Books, name: string): (string | undefined)[] {
  const plan = planOf(books)
  const found: (string | undefined)[] = []
  for (const guard of plan.guards ?? []) if (guard.name === name) found.push(guard.by)
  for (const source of plan.waterfall) {
    if ('overage' in source && name === 'overage') found.push(undefined)
    if ('allowance' in source && source.windows.some((one) => `${source.allowance}/${one.name}` === name))
      found.push(source.by)
  }
  return found
}
