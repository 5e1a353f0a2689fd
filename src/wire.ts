/**
 * What crosses HTTP, and what the embedded engine takes and answers: the same values. Types only.
 * Amounts are decimal strings of CU with at most six places (`"12.5"`); on the way in, exact JSON numbers are taken too.
 * Instants are integer milliseconds since the epoch and end in `_at`; durations end in `_ms`.
 */
export type Amount = string
export type AmountIn = string | number
/** Dimension → value: `{ user: "u1", team: "t4" }`. At most 8. */
export type Subject = Readonly<Record<string, string>>
/** At most 16; numbers and booleans are taken as their text. */
export type AttributesIn = Readonly<Record<string, string | number | boolean>>
/** At most 32, disjoint, non-negative, at most six places. */
export type QuantitiesIn = Readonly<Record<string, AmountIn>>
export type Quantities = Readonly<Record<string, Amount>>

export type Outcome = 'allow' | 'partial' | 'wait' | 'deny'
export type RequestState =
  | 'none'
  | 'open'
  | 'settled'
  | 'released'
  | 'expired_released'
  | 'expired_charged'
  | 'recorded'
export type GrantKind = 'free' | 'promo' | 'plan' | 'enterprise' | 'purchased' | 'adjustment'
export type AccountStatus = 'active' | 'suspended' | 'closed'
/** `call`: to call through the gateway for one account; of Sluice's own calls it may make none but to look at that account. */
export type Role = 'admin' | 'meter' | 'read' | 'call'

/** `source` is `allowance:<name>`, `grant:<id>`, `overage`, `absorbed` or `debt`. */
export interface Share {
  readonly source: string
  readonly amount: Amount
}

export interface Limit {
  readonly kind: 'rate' | 'concurrency' | 'budget' | 'allowance' | 'credits' | 'overage'
  readonly name: string
  readonly by?: string
  readonly subject?: string
  /** `requests`, `cu`, `holds`, or the name of a quantity. */
  readonly unit: string
  readonly limit: Amount
  readonly used: Amount
  readonly held: Amount
  readonly remaining: Amount
  readonly resets_at?: number
}

/** All of it together would admit the request, if nothing else happened meanwhile. */
export interface Unblock {
  readonly wait_until?: number
  /** The instant is the latest: a hold may end earlier. */
  readonly at_latest?: true
  readonly credits?: Amount
  /** A smaller request that fits now. */
  readonly at_most?: Amount
}

export interface ReserveRequest {
  readonly request_id: string
  readonly account: string
  readonly subject?: Subject
  readonly feature: string
  readonly attributes?: AttributesIn
  /** One of `estimate` and `cost`, else the feature's default estimate. */
  readonly estimate?: QuantitiesIn
  readonly cost?: AmountIn
  /** The least that is of use, as a cost or as quantities: below the whole, it makes a partial grant welcome. */
  readonly min_cost?: AmountIn
  readonly min?: QuantitiesIn
  readonly ttl_ms?: number
  readonly dry_run?: boolean
}

export interface ExtendRequest {
  readonly request_id: string
  readonly account: string
  readonly step: number
  /** The new total. */
  readonly estimate?: QuantitiesIn
  readonly cost?: AmountIn
  readonly ttl_ms?: number
  /** What has been used so far. */
  readonly used?: QuantitiesIn
  readonly min_cost?: AmountIn
}

export interface DecisionAnswer {
  readonly request_id: string
  readonly outcome: Outcome
  readonly reason: string
  /** What was asked, in all; and what is held, in all, after this decision. */
  readonly cost: Amount
  readonly granted: Amount
  readonly granted_estimate?: Quantities
  readonly from: readonly Share[]
  readonly expires_at: number | null
  readonly retry_after_ms?: number
  readonly unblock?: Unblock
  readonly limits: readonly Limit[]
  readonly policy_version: number
  readonly decided_at: number
  readonly state: RequestState
  readonly replayed: boolean
  readonly dry_run?: true
}

export interface SettleRequest {
  readonly request_id: string
  readonly account: string
  readonly subject?: Subject
  readonly feature?: string
  readonly attributes?: AttributesIn
  readonly usage?: QuantitiesIn
  readonly cost?: AmountIn
  readonly endpoint?: string
  readonly started_at?: number
  readonly duration_ms?: number
  /** What was used was counted or guessed, and not told by what did the work. */
  readonly estimated?: boolean
}

export interface RecordRequest {
  readonly request_id: string
  readonly account: string
  readonly subject?: Subject
  readonly feature: string
  readonly attributes?: AttributesIn
  readonly usage?: QuantitiesIn
  readonly cost?: AmountIn
  readonly at?: number
  readonly endpoint?: string
  readonly duration_ms?: number
  /** What was used was counted or guessed, and not told by what did the work. */
  readonly estimated?: boolean
}

export interface ChargeAnswer {
  readonly request_id: string
  readonly state: RequestState
  readonly charged: Amount
  readonly from: readonly Share[]
  readonly returned: Amount
  readonly absorbed: Amount
  readonly debt: Amount
  readonly unpriced?: readonly string[]
  readonly replayed: boolean
}

export interface ReleaseRequest {
  readonly request_id: string
  readonly account: string
  readonly reason?: string
}
export interface ReleaseAnswer {
  readonly request_id: string
  readonly state: RequestState
  readonly returned: Amount
  readonly replayed: boolean
}

export interface RefundRequest {
  readonly refund_id: string
  /** How much goes back; or what was truly used, and the difference goes back; neither: all of it. */
  readonly amount?: AmountIn
  readonly usage?: QuantitiesIn
  readonly reason: string
}
export interface RefundAnswer {
  readonly request_id: string
  readonly refund_id: string
  readonly refunded: Amount
  /** Where it went: positive amounts, in the order restored. */
  readonly to: readonly Share[]
  /** What stays charged after all corrections. */
  readonly charged: Amount
  readonly replayed: boolean
}

export interface AccountRequest {
  readonly id: string
  readonly plan: string
  readonly time_zone?: string
  readonly anchor_at?: number
  readonly metadata?: Readonly<Record<string, string>>
}
export interface AccountPatch {
  readonly plan?: string
  readonly status?: AccountStatus
  readonly time_zone?: string
  /** Merge patch: null removes a key, null for the whole removes all. */
  readonly metadata?: Readonly<Record<string, string | null>> | null
}

export interface GrantView {
  readonly id: string
  readonly kind: GrantKind
  readonly amount: Amount
  readonly remaining: Amount
  readonly held: Amount
  readonly priority: number
  readonly starts_at: number
  readonly expires_at: number | null
  readonly features?: readonly string[]
  readonly subjects?: Readonly<Record<string, readonly string[]>>
  /** `active`, `pending` (before its start), `expired`, `revoked`, `spent`. */
  readonly status: 'active' | 'pending' | 'expired' | 'revoked' | 'spent'
}
export interface WindowView {
  readonly name: string
  readonly limit: Amount
  readonly used: Amount
  readonly held: Amount
  readonly remaining: Amount
  /** Absent for a window that has not opened. */
  readonly resets_at?: number
}
export interface AllowanceView {
  readonly name: string
  readonly by?: string
  readonly subject?: string
  readonly windows: readonly WindowView[]
}
export interface AccountView {
  readonly id: string
  readonly plan: string
  readonly status: AccountStatus
  readonly time_zone: string
  readonly anchor_at: number
  readonly metadata: Readonly<Record<string, string>>
  readonly created_at: number
  readonly revision: number
  readonly open_holds: number
  readonly credits: {
    /** What could be spent now: remaining − held over active grants. */
    readonly available: Amount
    readonly held: Amount
    readonly debt: Amount
    readonly grants: readonly GrantView[]
  }
  readonly allowances: readonly AllowanceView[]
  readonly overage: Limit | null
  /** Guards of the account and of the subject asked for. */
  readonly limits: readonly Limit[]
  readonly overrides: readonly OverrideView[]
}

export interface OverrideIn {
  /** A guard, `<allowance>/<window>`, or `overage`. Null limit takes the override away. */
  readonly name: string
  readonly limit: AmountIn | null
  readonly until_at?: number
}
export interface OverridesRequest {
  /** Exactly one dimension, for one subject; absent for the whole account. */
  readonly subject?: Subject
  readonly overrides: readonly OverrideIn[]
  readonly reason: string
}
export interface OverrideView {
  readonly name: string
  readonly by?: string
  readonly subject?: string
  readonly limit: Amount
  readonly until_at: number | null
  readonly reason: string
}

export interface GrantRequest {
  readonly id: string
  readonly kind: GrantKind
  readonly amount: AmountIn
  readonly priority?: number
  readonly starts_at?: number
  readonly expires_at?: number
  readonly features?: readonly string[]
  readonly subjects?: Readonly<Record<string, string | readonly string[]>>
  readonly reason?: string
}
export interface GrantAnswer extends GrantView {
  /** What of it repaid debt at once. */
  readonly repaid: Amount
  readonly replayed: boolean
}
export interface RevokeRequest {
  readonly reason?: string
}

/** An entry as told: its text read back, with the private part laid in, or `erased`. */
export interface EntryView {
  /** `<account>/<seq>` */
  readonly id: string
  readonly account: string
  readonly seq: number
  readonly kind: 'usage' | 'charge' | 'balance' | 'decision' | 'change'
  readonly at: number
  readonly recorded_at: number
  readonly actor: string
  readonly request?: string
  /** Id of the entry before it in the story. */
  readonly previous?: string
  readonly hash: string
  readonly subject?: Subject
  readonly attributes?: Readonly<Record<string, string>>
  readonly erased?: true
  /** The kind's own fields; amounts as decimal strings. */
  readonly body: Readonly<Record<string, unknown>>
}

/**
 * What `GET /v1/accounts/{id}/events` tells. `seq` is the number up to which entries have been told: whoever comes back names it,
 * and misses nothing.
 */
export type AccountEvent = AccountShown | EntryAdded | RefusalNoted
/** The account as it stands: first on every connection, after entries, and where time alone has changed it. */
export interface AccountShown {
  readonly event: 'account'
  readonly seq: number
  readonly account: AccountView
}
/** An entry that was added: each once, in order. */
export interface EntryAdded {
  readonly event: 'entry'
  readonly seq: number
  readonly entry: EntryView
}
/** A refusal that was logged: as it comes, some seconds late, and perhaps twice after a reconnection. It has no number of its own. */
export interface RefusalNoted {
  readonly event: 'refusal'
  readonly seq: number
  readonly refusal: RefusalView
}
/** The first refusal of its subject, reason and second whole, and how many there were in that second. */
export interface RefusalView {
  readonly at: number
  readonly reason: string
  readonly count: number
  readonly feature: string
  readonly subject: Subject
  readonly answer: DecisionAnswer
}

/** The whole story of a request. */
export interface Explanation {
  readonly account: string
  readonly request_id: string
  readonly state: RequestState
  readonly feature?: string
  readonly subject?: Subject
  readonly attributes?: Readonly<Record<string, string>>
  readonly held: Amount
  readonly charged: Amount
  readonly expires_at: number | null
  /** From the first decision to the last transfer. */
  readonly entries: readonly EntryView[]
  /** Refusals that the bounded log still has. */
  readonly refusals: readonly {
    readonly at: number
    readonly reason: string
    readonly count: number
    readonly feature: string
    readonly answer: DecisionAnswer
  }[]
  /** The same, in sentences. */
  readonly story: readonly string[]
}

export interface HoldView {
  readonly request_id: string
  readonly feature: string
  readonly subject: Subject
  readonly held: Amount
  readonly from: readonly Share[]
  readonly reserved_at: number
  readonly expires_at: number
}
export interface SubjectView {
  readonly dimension: string
  readonly value: string
  readonly limits: readonly Limit[]
  readonly overrides: readonly OverrideView[]
}

export interface UsageQuery {
  readonly from: number
  readonly to: number
  /** `15m`, `hour`, `day`, `week`, `month` (in the account's zone), or absent for one row over all. */
  readonly bucket?: string
  /** `feature`, `endpoint`, a dimension or an attribute as `subject.user`, `attributes.model`. */
  readonly group_by?: readonly string[]
}
export interface UsageRow {
  readonly start_at: number
  readonly group: Readonly<Record<string, string | null>>
  readonly requests: number
  readonly charged: Amount
  readonly quantities: Quantities
  readonly sources: Readonly<Record<string, Amount>>
}

export interface PolicyVersionView {
  readonly version: number
  readonly published_at: number
  readonly actor: string
  readonly active: boolean
}
export interface PolicyView extends PolicyVersionView {
  readonly text: string
  readonly warnings: readonly Complaint[]
}
export interface Complaint {
  readonly path: string
  readonly message: string
  readonly line?: number
  readonly column?: number
}
export interface PolicyCheck {
  readonly valid: boolean
  readonly complaints: readonly Complaint[]
  readonly warnings: readonly Complaint[]
}

export interface KeyRequest {
  readonly id: string
  readonly role: Role
  readonly account?: string
  readonly subject?: Subject
  readonly expires_at?: number
}
export interface KeyView {
  readonly id: string
  readonly role: Role
  readonly account?: string
  readonly subject?: Subject
  readonly created_at: number
  readonly expires_at: number | null
  readonly revoked_at: number | null
}
/** `secret` is told once, here. */
export interface KeyMade extends KeyView {
  readonly secret: string
}

export interface List<T> {
  readonly items: readonly T[]
  /** Opaque; null at the end. */
  readonly next: string | null
}
export interface PageQuery {
  readonly limit?: number
  readonly cursor?: string
}

export type Operation =
  | ({ readonly op: 'reserve' } & ReserveRequest)
  | ({ readonly op: 'extend' } & ExtendRequest)
  | ({ readonly op: 'settle' } & SettleRequest)
  | ({ readonly op: 'release' } & ReleaseRequest)
  | ({ readonly op: 'record' } & RecordRequest)

/** RFC 9457. */
export interface Problem {
  readonly type: string
  readonly title: string
  readonly status: number
  readonly code: string
  readonly detail: string
  readonly path?: string
  readonly remedy?: string
  readonly retry_after_ms?: number
  readonly first?: unknown
  readonly complaints?: readonly Complaint[]
}
