/**
 * What would unblock a refusal. The advice is found by asking `decide` itself about the account as it would stand at each
 * later instant where something changes, so that following it gets through.
 */
import { owed } from '../ledger/books.ts'
import { add, MAX_MICROS, type Micros, type Millis } from '../units.ts'
import { lookAhead } from './advance.ts'
import type { Counters } from './cells.ts'
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

/** Of an extend, `held` is what it has and until when: less is told as a new total, and after that end no waiting helps. */
export function advise(
  draft: Draft,
  plan: Plan,
  asked: Asked,
  verdict: Verdict,
  held?: { readonly granted: Micros; readonly endAt: Millis },
): Unblocking {
  const others = draft.account.openHolds - (held === undefined ? 0 : 1)
  const atMost = verdict.most > 0 ? { atMost: add(held?.granted ?? 0, verdict.most) } : {}
  if (verdict.reason === 'too_large') return { outcome: 'deny', advice: atMost }
  let guardsFreeAt:
    | { readonly at: Millis; readonly verdict: Verdict; readonly question: Question }
    | undefined
  const later = instants(draft, verdict, questionOf(draft, plan, asked, draft.nowAt).subjects)
  for (let looked = 0; looked < Math.min(later.length, MAX_INSTANTS); looked++) {
    const at = later[looked] as Millis
    if (held !== undefined && at >= held.endAt) break
    const ahead = at === draft.nowAt ? draft : lookAhead(draft, at)
    const question = questionOf(ahead, plan, asked, at)
    const then = at === draft.nowAt ? verdict : decide(question)
    if (then.outcome === 'allow') {
      const latest = mayComeEarlier(draft, plan, asked, at, others, ({ outcome }) => outcome === 'allow')
      const advice = { waitUntilAt: at, ...latest, ...atMost }
      return { outcome: at - draft.nowAt <= plan.patienceMs ? 'wait' : 'deny', advice }
    }
    if (then.guardsPass) guardsFreeAt ??= { at, verdict: then, question }
    // Under a limit that an exception has left, a rate drains to another instant than it seemed to.
    noteLater(later, at, then.freeAt)
  }
  if (guardsFreeAt === undefined) return { outcome: 'deny', advice: atMost }
  const credits = creditsNeeded(plan, guardsFreeAt.question, guardsFreeAt.verdict)
  if (credits === undefined) return { outcome: 'deny', advice: atMost }
  const { at } = guardsFreeAt
  const waiting =
    at === draft.nowAt
      ? {}
      : { waitUntilAt: at, ...mayComeEarlier(draft, plan, asked, at, others, ({ guardsPass }) => guardsPass) }
  return { outcome: 'deny', advice: { ...waiting, credits, ...atMost } }
}

/** An instant is the latest where the request would get through a millisecond earlier without the holds: one may end. */
function mayComeEarlier(
  draft: Draft,
  plan: Plan,
  asked: Asked,
  at: Millis,
  others: number,
  enough: (verdict: Verdict) => boolean,
): { readonly atLatest?: true } {
  if (others === 0) return {}
  const earlierAt = at - 1
  const ahead = earlierAt === draft.nowAt ? draft : lookAhead(draft, earlierAt)
  return enough(decide(withoutHolds(questionOf(ahead, plan, asked, earlierAt)))) ? { atLatest: true } : {}
}

function withoutHolds(question: Question): Question {
  const { account, subjects } = question
  const free = (counters: Counters): Counters => ({
    ...counters,
    windows: Object.fromEntries(
      Object.entries(counters.windows).map(([key, window]) => [key, { ...window, held: 0 }]),
    ),
    concurrency: {},
  })
  return {
    ...question,
    account: {
      ...account,
      counters: free(account.counters),
      grants: account.grants.map((grant) => ({ ...grant, held: 0 })),
    },
    subjects: Object.fromEntries(
      Object.entries(subjects).map(([name, cell]) => [name, { ...cell, counters: free(cell.counters) }]),
    ),
  }
}

/**
 * Now, and in order every later instant at which a window or an exception ends, a rate drains, a hold must end, or a grant
 * starts or recurs.
 */
function instants(draft: Draft, verdict: Verdict, subjects: Question['subjects']): Millis[] {
  const later = [draft.nowAt]
  const { account } = draft
  const note = (at: Millis | null): void => {
    if (at !== null) noteLater(later, draft.nowAt, [at])
  }
  for (const line of verdict.limits) note(line[8])
  noteLater(later, draft.nowAt, verdict.freeAt)
  for (const grant of account.grants) note(grant.startsAt)
  for (const { nextAt } of Object.values(account.recurrences)) note(nextAt)
  for (const { overrides } of [account, ...Object.values(subjects)])
    for (const { untilAt } of Object.values(overrides)) note(untilAt)
  return later
}

/** Adds instants after `at` to an ordered list, once each. */
function noteLater(later: Millis[], at: Millis, found: readonly Millis[]): void {
  for (const one of found) {
    if (one <= at || later.includes(one)) continue
    const place = later.findIndex((other) => other > one)
    later.splice(place === -1 ? later.length : place, 0, one)
  }
}

/**
 * Credits that would cover what is short: what is owed comes first, since a new grant repays it and frees the others.
 * Undefined where no credits would, or more than can be counted.
 */
function creditsNeeded(plan: Plan, question: Question, verdict: Verdict): Micros | undefined {
  if (!plan.waterfall.some((source) => source.kind === 'credits')) return undefined
  const debt = owed(question.account.books)
  if (debt === 0) return add(question.cost, -verdict.available)
  const account = { ...question.account, books: { ...question.account.books, debt: 0 } }
  const credits = debt + Math.max(0, question.cost - decide({ ...question, account }).available)
  return credits <= MAX_MICROS ? credits : undefined
}
