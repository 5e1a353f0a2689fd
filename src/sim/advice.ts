/**
 * Does what a refusal advises get through? What asks only for time is tried on the engine itself, with its clock set ahead
 * and without leaving a trace; what asks for credits is tried on another engine that has lived through the same history.
 */
import type { Engine } from '../engine/contract.ts'
import type { PolicyDocument } from '../policy/schema.ts'
import type * as wire from '../wire.ts'
import { lengthOf } from './calendar.ts'
import type { SettableClock } from './clock.ts'
import { expectSame, expectThat } from './disagreement.ts'
import { type Books, openRequests, planOf } from './naive-books.ts'

const DAY_MS = 86_400_000

/** Checks that `wait` is said where waiting helps soon, and follows what needs nothing but time or less. */
export async function followOnTheSpot(
  engine: Engine,
  clock: SettableClock,
  books: Books,
  request: wire.ReserveRequest,
  answer: wire.DecisionAnswer,
): Promise<void> {
  const { unblock = {}, retry_after_ms } = answer
  const now = clock.now()
  const patience = lengthOf(planOf(books).patience ?? '1h') as number
  if (answer.outcome === 'wait') {
    expectThat(unblock.wait_until !== undefined && unblock.credits === undefined, 'a `wait` says until when')
    expectThat(
      unblock.wait_until - now <= patience,
      `a wait of ${unblock.wait_until - now} ms tries one's patience`,
    )
    expectSame(retry_after_ms, unblock.wait_until - now, 'when to try again')
  }
  if (unblock.wait_until !== undefined && unblock.credits === undefined) {
    expectThat(unblock.wait_until > now, 'waiting until a time that has passed')
    expectThat(
      answer.outcome === 'wait' || unblock.wait_until - now > patience,
      'waiting would do, and is not said',
    )
    if (!isForeseen(books, unblock)) return
    clock.set(unblock.wait_until)
    const later = await engine.reserve({ ...request, dry_run: true })
    clock.set(now)
    // A hold that ends meanwhile may take a place for its subject: that is not foreseen either.
    if (later.reason === 'subject_limit') return
    expectSame(later.outcome, 'allow', `the advised wait until ${unblock.wait_until} (${later.reason})`)
  }
  if (unblock.at_most !== undefined) {
    const { estimate: _, min: __, min_cost: ___, ...rest } = request
    const smaller = await engine.reserve({ ...rest, cost: unblock.at_most, dry_run: true })
    expectSame(
      smaller.outcome,
      'allow',
      `the advised request of at most ${unblock.at_most} (${smaller.reason})`,
    )
  }
}

/**
 * Whether a hold will be charged at its end meanwhile: it may cost more than it has, and count where nothing was held. No
 * advice foresees that, because it would have to know what each open request has used.
 */
export function isForeseen(books: Books, { wait_until }: wire.Unblock): boolean {
  if (wait_until === undefined) return true
  return openRequests(books).every(({ hold }) => hold?.onExpiry !== 'charge' || hold.expiresAt > wait_until)
}

/** Waits, grants and asks as advised; `engine` has lived through the same history and is not needed afterwards. */
export async function followWithCredits(
  engine: Engine,
  clock: SettableClock,
  { policy, plan }: { readonly policy: PolicyDocument; readonly plan: string },
  unblock: wire.Unblock,
  again: () => Promise<wire.DecisionAnswer>,
): Promise<void> {
  if (unblock.wait_until !== undefined) clock.set(unblock.wait_until)
  if (unblock.credits !== undefined) {
    const step = policy.plans[plan]?.waterfall.find((one) => 'credits' in one)
    const kind = step?.credits[0]
    expectThat(kind !== undefined, 'credits are advised where none pay')
    const expires_at = clock.now() + DAY_MS
    await engine.grant('acme', { id: 'advised', kind, amount: unblock.credits, priority: 0, expires_at })
  }
  const { outcome, reason } = await again()
  expectSame(outcome, 'allow', `following ${JSON.stringify(unblock)} (${reason})`)
}
