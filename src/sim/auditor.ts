/**
 * An auditor who trusts nobody: it sees every operation and its answer, keeps books of its own from the rules as they are
 * written, and throws a `Disagreement` where an answer is not what they say. It never sees a cell.
 */
import type { PolicyDocument } from '../policy/schema.ts'
import type { Millis } from '../units.ts'
import type * as wire from '../wire.ts'
import { granted, overridden, patched, revoked } from './audit-account.ts'
import { extended, reserved } from './audit-decisions.ts'
import { refunded, released, used } from './audit-exits.ts'
import { expectThat, type Told } from './disagreement.ts'
import { type Books, doubtRemoved } from './naive-books.ts'
import { doubtIdle } from './naive-rates.ts'
import { advance, beginGrants } from './naive-time.ts'
import { checkView } from './naive-view.ts'

export type Auditor = ReturnType<typeof createAuditor>

export function createAuditor(policy: PolicyDocument, startAt: Millis) {
  let kept: Books | undefined
  const books = (): Books => {
    expectThat(kept !== undefined, 'the account was not made')
    return kept
  }

  return {
    books,
    made(request: wire.AccountRequest, view: wire.AccountView): void {
      kept = {
        policy,
        plan: request.plan,
        status: 'active',
        frame: {
          zone: request.time_zone ?? 'UTC',
          anchorAt: request.anchor_at ?? startAt,
          anchored: request.anchor_at !== undefined,
        },
        now: startAt,
        grants: [],
        recurrences: [],
        requests: new Map(),
        windows: new Map(),
        rates: new Map(),
        overrides: [],
        subjects: new Map(),
        owed: [],
        repaid: 0n,
        mayHaveForgotten: false,
      }
      beginGrants(kept, false)
      checkView(kept, view, {})
    },
    tidied(): void {
      const { rates, now } = books()
      books().mayHaveForgotten = true
      for (const book of rates.values()) doubtIdle(book, now)
    },
    passed: (to: Millis): void => advance(books(), to),
    viewed: (view: wire.AccountView, subject: wire.Subject): void => checkView(books(), view, subject),
    /** The plan's new grants begin at the account's next write, so that one must follow at once. */
    published(next: PolicyDocument): void {
      const before = books()
      before.policy = next
      doubtRemoved(before)
      beginGrants(before, false)
    },

    reserved: (op: wire.ReserveRequest, told: Told<wire.DecisionAnswer>): void => reserved(books(), op, told),
    extended: (op: wire.ExtendRequest, told: Told<wire.DecisionAnswer>): void => extended(books(), op, told),
    settled: (op: wire.SettleRequest, told: Told<wire.ChargeAnswer>): void =>
      used(books(), 'settle', op, told),
    recorded: (op: wire.RecordRequest, told: Told<wire.ChargeAnswer>): void =>
      used(books(), 'record', op, told),
    released: (op: wire.ReleaseRequest, told: Told<wire.ReleaseAnswer>): void => released(books(), op, told),
    refunded: (request: string, op: wire.RefundRequest, told: Told<wire.RefundAnswer>): void =>
      refunded(books(), request, op, told),
    granted: (op: wire.GrantRequest, told: Told<wire.GrantAnswer>): void => granted(books(), op, told),
    revoked: (id: string, told: Told<wire.GrantView>): void => revoked(books(), id, told),
    patched: (patch: wire.AccountPatch, told: Told<wire.AccountView>): void => patched(books(), patch, told),
    overridden: (op: wire.OverridesRequest, told: Told<wire.AccountView>): void =>
      overridden(books(), op, told),
  }
}
