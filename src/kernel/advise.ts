/**
 * What would unblock a refusal. The advice is found by asking `decide` itself about the account as it would stand at each
 * later instant where something changes, so that following it gets through.
 */
import { owed } from '../ledger/books.ts'
import { add, type Micros, type Millis } from '../units.ts'
import { lookAhead } from './advance.ts'
import { decide, type Question, type Verdict } from './decide.ts'
import type { Draft } from './draft.ts'
import { type Asked, questionOf } from './hold.ts'
import type { Plan } from './plan.ts'

/** A conjunction: all of it together would admit the request if nothing else happened. */
export interface Advice {
  readonly waitUntilAt?: Millis
  readonly atLatest?: true
  readonly credits?: Micros
  readonly atMost?: Micros
}
export interface Unblocking {
  /** Waiting alone suffices, within the plan's patience. */
  readonly outcome: 'wait' | 'deny'
  readonly advice: Advice
}

/** The most instants that are looked at; more than this many limits change at different times only in odd plans. */
const MAX_INSTANTS = 64

export function advise(draft: Draft, plan: Plan, asked: Asked, verdict: Verdict): Unblocking {
  const atMost = verdict.most > 0 ? { atMost: verdict.most } : {}
  if (verdict.reason === 'too_large') return { outcome: 'deny', advice: atMost }
  const latest = verdict.freeAt.some((free) => free.atLatest)
  let guardsFreeAt:
    | { readonly at: Millis; readonly verdict: Verdict; readonly question: Question }
    | undefined
  for (const at of instants(draft, verdict)) {
    const ahead = at === draft.nowAt ? draft : lookAhead(draft, at)
    const question = questionOf(ahead, plan, asked, at)
    const then = at === draft.nowAt ? verdict : decide(question)
    if (then.outcome === 'allow') {
      const advice = { waitUntilAt: at, ...(latest ? { atLatest: true as const } : {}), ...atMost }
      return { outcome: at - draft.nowAt <= plan.patienceMs ? 'wait' : 'deny', advice }
    }
    if (then.guardsPass) guardsFreeAt ??= { at, verdict: then, question }
  }
  if (guardsFreeAt === undefined) return { outcome: 'deny', advice: atMost }
  const credits = creditsNeeded(plan, guardsFreeAt.question, guardsFreeAt.verdict)
  if (credits === undefined) return { outcome: 'deny', advice: atMost }
  const waiting =
    guardsFreeAt.at === draft.nowAt
      ? {}
      : { waitUntilAt: guardsFreeAt.at, ...(latest ? { atLatest: true as const } : {}) }
  return { outcome: 'deny', advice: { ...waiting, credits, ...atMost } }
}

/** Now, and every later instant at which a window ends, a rate drains, a hold must end, or a grant starts or recurs. */
function instants(draft: Draft, verdict: Verdict): Millis[] {
  const later = new Set<Millis>()
  for (const line of verdict.limits) if (line[8] !== null) later.add(line[8])
  for (const free of verdict.freeAt) later.add(free.at)
  for (const grant of draft.account.grants) later.add(grant.startsAt)
  for (const { nextAt } of Object.values(draft.account.recurrences)) if (nextAt !== null) later.add(nextAt)
  const ordered = [...later].filter((at) => at > draft.nowAt).sort((a, b) => a - b)
  return [draft.nowAt, ...ordered.slice(0, MAX_INSTANTS)]
}

/** Credits that would cover what is short: what is owed comes first, since a new grant repays it and frees the others. */
function creditsNeeded(plan: Plan, question: Question, verdict: Verdict): Micros | undefined {
  if (!plan.waterfall.some((source) => source.kind === 'credits')) return undefined
  const debt = owed(question.account.books)
  if (debt === 0) return add(question.cost, -verdict.available)
  const account = { ...question.account, books: { ...question.account.books, debt: 0 } }
  return add(debt, Math.max(0, question.cost - decide({ ...question, account }).available))
}
