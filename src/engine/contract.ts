/** What the engine promises its callers. `../engine.ts` makes one. */
import type { PriorityClass } from '../kernel/plan.ts'
import type { StoreHealth } from '../store.ts'
import type { Millis } from '../units.ts'
import type * as wire from '../wire.ts'

/** On whose behalf an operation runs: a key's id, or `system`. Stands in every entry it writes. */
export interface Caller {
  readonly actor: string
  /** Where the key stands for one subject: requests of others are `forbidden` to it. */
  readonly subject?: wire.Subject | undefined
  /**
   * What a line has no price for costs nothing in an estimate, instead of being `price_missing`: for programs that name all that a
   * provider may count, where an owner prices some of it.
   */
  readonly unpriced?: 'free' | undefined
}

/**
 * Every method rejects with `SluiceError` where Sluice could not decide; a refusal is an answer. Every mutating method
 * may be repeated any number of times with the same ids, and changes nothing after the first.
 */
export interface Engine {
  reserve(request: wire.ReserveRequest, caller?: Caller): Promise<wire.DecisionAnswer>
  extend(request: wire.ExtendRequest, caller?: Caller): Promise<wire.DecisionAnswer>
  settle(request: wire.SettleRequest, caller?: Caller): Promise<wire.ChargeAnswer>
  release(request: wire.ReleaseRequest, caller?: Caller): Promise<wire.ReleaseAnswer>
  record(request: wire.RecordRequest, caller?: Caller): Promise<wire.ChargeAnswer>
  refund(
    account: string,
    requestId: string,
    request: wire.RefundRequest,
    caller?: Caller,
  ): Promise<wire.RefundAnswer>

  createAccount(request: wire.AccountRequest, caller?: Caller): Promise<wire.AccountView>
  /** `subject` selects whose windows are shown beside the account's own. A caller bound to one is not shown others' grants. */
  account(id: string, subject?: wire.Subject, caller?: Caller): Promise<wire.AccountView>
  /** `ifRevision`, where given, must be the account's revision: else `precondition_failed`. */
  patchAccount(
    id: string,
    patch: wire.AccountPatch,
    ifRevision?: number,
    caller?: Caller,
  ): Promise<wire.AccountView>
  overrideLimits(
    id: string,
    request: wire.OverridesRequest,
    ifRevision?: number,
    caller?: Caller,
  ): Promise<wire.AccountView>
  grant(account: string, request: wire.GrantRequest, caller?: Caller): Promise<wire.GrantAnswer>
  revokeGrant(
    account: string,
    grant: string,
    request?: wire.RevokeRequest,
    caller?: Caller,
  ): Promise<wire.GrantView>

  accounts(
    query: wire.PageQuery & {
      readonly q?: string
      readonly plan?: string
      readonly status?: wire.AccountStatus
    },
  ): Promise<wire.List<wire.AccountView>>
  grants(account: string, query: wire.PageQuery): Promise<wire.List<wire.GrantView>>
  holds(account: string, query: wire.PageQuery): Promise<wire.List<wire.HoldView>>
  subjects(account: string, query: wire.PageQuery): Promise<wire.List<wire.SubjectView>>
  entries(
    account: string,
    query: wire.PageQuery & {
      readonly kinds?: readonly wire.EntryView['kind'][]
      readonly newestFirst?: boolean
    },
  ): Promise<wire.List<wire.EntryView>>
  /** All accounts, in commit order, without gaps. */
  journal(
    query: wire.PageQuery & { readonly kinds?: readonly wire.EntryView['kind'][] },
  ): Promise<wire.List<wire.EntryView>>
  usage(account: string, query: wire.UsageQuery): Promise<readonly wire.UsageRow[]>
  /** A caller bound to a subject is told of that subject's refusals only: others may have tried under the same id. */
  explain(account: string, requestId: string, caller?: Caller): Promise<wire.Explanation>
  /** Over all accounts that know the id. */
  explainAnywhere(requestId: string, caller?: Caller): Promise<readonly wire.Explanation[]>

  /**
   * What happens in an account, from now on or after an entry: pulled, so that a slow reader waits and nothing piles up. The
   * first event shows the account, whatever was chosen. Rejects with `account_unknown`, with `invalid` where `after` is beyond
   * the newest entry, with `overloaded` where the node has no room for more streams. Ends when its signal is aborted, when it is
   * left, and when the engine closes.
   */
  watch(account: string, options?: WatchOptions, caller?: Caller): AsyncIterable<wire.AccountEvent>

  /** A request as it stands, as long as its id is protected. */
  request(account: string, requestId: string): Promise<RequestStanding | undefined>
  /** Those whose ids begin so, in order of id. */
  requests(
    account: string,
    query: wire.PageQuery & { readonly prefix: string },
  ): Promise<wire.List<RequestStanding>>
  /**
   * Writes a note of at most 512 characters on a request, open or closed, where `before` is the note that stands; answers the
   * request as it stands then, whoever was first. It is trusted by whoever reads it, so there is no call of HTTP that writes one.
   */
  note(account: string, requestId: string, note: string, before: string | undefined): Promise<RequestStanding>
  /** Open requests of all accounts that have a note, by account: the limit counts accounts. */
  openNotes(query: wire.PageQuery): Promise<wire.List<RequestStanding>>

  policy(version?: number): Promise<wire.PolicyView>
  policyVersions(query: wire.PageQuery): Promise<wire.List<wire.PolicyVersionView>>
  checkPolicy(text: string): Promise<wire.PolicyCheck>
  /** `ifVersion` must be the active version (0 before the first). Publishing the active text again changes nothing. */
  publishPolicy(text: string, ifVersion: number | undefined, caller?: Caller): Promise<wire.PolicyView>

  createKey(request: wire.KeyRequest, caller?: Caller): Promise<wire.KeyMade>
  keys(query: wire.PageQuery): Promise<wire.List<wire.KeyView>>
  revokeKey(id: string, caller?: Caller): Promise<wire.KeyView>
  /** The key whose secret this is, if it is valid now. */
  authenticate(secret: string): Promise<wire.KeyView | undefined>

  /** Removes what names a subject from entries, requests and logs; the chain stays whole. Answers how many entries lost it. */
  erase(
    account: string,
    dimension: string,
    value: string,
    caller?: Caller,
  ): Promise<{ readonly entries: number }>
  /** Brings an account whose last instant lies ahead of the clock back to now, with an entry. */
  repairClock(account: string, caller?: Caller): Promise<wire.AccountView>
  acceptClock(): void
  audit(options: AuditOptions, caller?: Caller): Promise<AuditReport>
  /**
   * Lets go of entries that were recorded before a month, where the store can: audits each account that has such entries and
   * writes down what they add up to, and then drops them. Rejects with `conflict`, and drops nothing, where an account
   * disagrees or a request still needs one of them. It may be interrupted anywhere and be called again.
   */
  retain(options: RetainOptions, caller?: Caller): Promise<RetainReport>
  /** Answers what audits parts, for an `audit` in another thread that lends them out. */
  auditParts(means: AuditMeans, caller?: Caller): (part: AuditPart) => Promise<readonly AuditedAccount[]>

  /** Closes holds past their end until none is left; answers how many. The sweep does it by itself; tests and simulations call it. */
  sweep(): Promise<number>
  /**
   * One quiet pass over all accounts: grants and periods that are due, idle subjects, usage that no total counts yet, requests
   * past the horizon.
   */
  tidyUp(): Promise<void>
  /** Counts the open holds of all accounts, and notes it in `metrics.openHolds`. */
  countHolds(): Promise<number>
  now(): Promise<Millis>
  health(): StoreHealth
  readonly metrics: EngineMetrics
  /** Stops the sweeps, finishes what was accepted, closes the store. */
  close(): Promise<void>
}

export interface WatchOptions {
  /** Entries after this one are told; absent, those after the newest. */
  readonly after?: number | undefined
  /** Whose windows are shown beside the account's own. */
  readonly subject?: wire.Subject | undefined
  /** Absent: all. */
  readonly events?: readonly wire.AccountEvent['event'][] | undefined
  readonly signal?: AbortSignal | undefined
}

/** What the program that does a request's work needs to know of it to go on. */
export interface RequestStanding {
  readonly account: string
  readonly request_id: string
  readonly state: wire.RequestState
  readonly feature: string
  readonly subject: wire.Subject
  readonly attributes: Readonly<Record<string, string>>
  readonly created_at: Millis
  /** Null where it is closed. */
  readonly expires_at: Millis | null
  /** The last step of `extend`. */
  readonly step: number
  readonly note: string | undefined
}

/** What the audit of each account goes by. */
export interface AuditMeans {
  /** Begin each account at its newest checkpoint; where it has none that can be read, or its head is older, at its start. */
  readonly fromCheckpoints?: boolean
  /** Write one for each account in which nothing disagrees and which has moved since its last. It writes to the store. */
  readonly writeCheckpoints?: boolean
  /** For `retain`: write behind what stands each account's journal is to begin, since entries before this are to go. */
  readonly retain?: Millis
}
export interface AuditOptions extends AuditMeans {
  /** Heads kept elsewhere: account → `{ seq, hash }`. An entry of that number must have that hash. */
  readonly heads?: Readonly<Record<string, Head>>
  /** Absent: all accounts and `@system`. */
  readonly accounts?: readonly string[]
  /** Go on behind this account: the order is `@system`, then by id. */
  readonly after?: string
  /** Where the parts of an audit are worked out: in this thread, or in others by their `auditParts`. */
  readonly elsewhere?: (part: AuditPart) => Promise<readonly AuditedAccount[]>
  /** How many parts at a time; 2 unless it is told, so that one is worked out while the other is read. */
  readonly atOnce?: number
  /** Both are called in the order of accounts, however many parts are audited at a time. */
  readonly onAccount?: (audited: AuditedAccount) => void
  readonly onDisagreement?: (disagreement: Disagreement) => void
}
/** Some accounts in order, with what their cells said before the audit reads their first entry. Plain data. */
export type AuditPart = readonly {
  readonly account: string
  readonly seq: number
  readonly checkpoint?: number
  readonly erased?: number
  /** Where its journal begins since older entries were let go. */
  readonly retained?: { readonly seq: number; readonly asOf: number; readonly before: Millis }
  /** Its head that was kept elsewhere. */
  readonly kept?: Head
  /** Its last entry that is to be let go. */
  readonly edge?: number
}[]
export interface AuditedAccount {
  readonly account: string
  readonly entries: number
  readonly head: Head
  readonly disagreements: number
  /** The first 10,000 of them. */
  readonly found: readonly Disagreement[]
  /** Whether it was audited from a checkpoint on, and whether one was written. */
  readonly resumed: boolean
  readonly written: boolean
  /** Entries before this were let go: the audit began behind them. */
  readonly retainedBefore?: Millis
  /** The head kept elsewhere stands before where the audit began, and was compared with nothing. */
  readonly headGone?: true
  /** A request whose answers stand in entries that are to be let go. */
  readonly needs?: { readonly request: string; readonly seq: number }
}
export interface Head {
  readonly seq: number
  readonly hash: string
}
export interface Disagreement {
  readonly account: string
  /** `chain`, `private`, `checkpoint`, `charge`, `transfer`, `balance`, `window`, `hold`, `grant`, `account`, `usage`, `missing`, `head`, `format` */
  readonly kind: string
  readonly message: string
  readonly seq?: number
  readonly request?: string
  readonly amount?: wire.Amount
}
export interface AuditReport {
  readonly accounts: number
  readonly entries: number
  readonly disagreements: number
  /** Accounts that were audited from their checkpoint on, and checkpoints that were written. */
  readonly checkpoints: { readonly resumed: number; readonly written: number }
  /**
   * Accounts that were audited from where their older entries were let go, the latest instant before which they were, and heads
   * kept elsewhere that stand before and were compared with nothing.
   */
  readonly retention: {
    readonly accounts: number
    readonly before: Millis | null
    readonly heads: number
  }
  /** Of every account: some 150 bytes each. */
  readonly heads: Readonly<Record<string, Head>>
}

export interface RetainOptions {
  /** Entries recorded before the month of this instant, in UTC, are let go. */
  readonly before: Millis
  readonly onAccount?: (audited: AuditedAccount) => void
}
export interface RetainReport {
  /** The beginning of that month. */
  readonly before: Millis
  /** Accounts that had such entries, and entries that were audited before any was let go. */
  readonly accounts: number
  readonly entries: number
  /** Months that were dropped, as `2026-03`. */
  readonly months: readonly string[]
}

/** Counters since start, for `/metrics`: plain numbers that only the engine changes. */
export interface EngineMetrics {
  /** `<operation> <outcome> <reason>` → how many. */
  readonly decisions: ReadonlyMap<string, number>
  /** source kind → µCU charged. */
  readonly chargedMicros: ReadonlyMap<string, number>
  readonly commits: {
    count: number
    operations: number
    entries: number
    durationMs: number
    readonly sizeBuckets: readonly number[]
  }
  openHolds: number
  /** Streams of events that are open. */
  streams: number
  sweepLagMs: number
  refusalsLogged: number
  refusalsCounted: number
}
export const COMMIT_SIZE_BOUNDS = [1, 2, 4, 8, 16, 32, 64, 128, 256] as const

export type { PriorityClass }
