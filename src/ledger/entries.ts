/**
 * Journal lines that never change, and the chain that holds an account's lines together.
 *
 * The canonical form of an entry, version 1, is the JSON text written here, with fields in this order; amounts are
 * integers of µCU, quantities integers of micro-units, instants milliseconds. Its hash is SHA-256 over the hash before
 * it, a newline, and that text. The hash before an account's first entry is SHA-256 of `sluice:1:<account>`.
 */

import type { Micros, Millis } from '../units.ts'
import type { LedgerAccount } from './books.ts'
import type { Subject } from './grants.ts'
import type { Attributes, Quantities } from './price.ts'

export const ENTRY_KINDS = ['usage', 'charge', 'balance', 'decision', 'change'] as const
export type EntryKind = (typeof ENTRY_KINDS)[number]
export const ENTRY_FORMAT = 1

/** SHA-256 of a text as lower-case hex; handed in, so that the ledger needs no platform. */
export type Sha256 = (text: string) => string

/** Number and hash of an account's newest entry; number 0 before the first. */
export interface ChainHead {
  readonly seq: number
  readonly hash: string
}

/** An entry as a store keeps it: the exact text that was hashed, and the part that can be erased. */
export interface StoredEntry {
  readonly seq: number
  readonly kind: EntryKind
  readonly body: string
  /** `{"salt":…,"subject":…,"attributes":…}`; its SHA-256 stands in the body. Null where there is none or it was erased. */
  readonly private: string | null
  readonly hash: string
}

interface EntryHead {
  readonly v: number
  readonly seq: number
  readonly kind: EntryKind
  /** When it took effect; `recorded_at` is given where it was written later. */
  readonly at: Millis
  readonly recorded_at?: Millis
  /** The key that asked, or `system`. */
  readonly actor: string
  readonly request?: string
  /** The entry before it in the story of its request or grant. */
  readonly previous?: number
  /** SHA-256 of the private part. */
  readonly private?: string
}

/** `[source, amount]` in the order drawn. */
export type Split = readonly (readonly [source: string, amount: Micros])[]

/** One guard or source as the decision saw it, after it; `took` is what this decision took, so that before is told too. */
export type LimitLine = readonly [
  kind: 'rate' | 'concurrency' | 'budget' | 'allowance' | 'credits' | 'overage',
  name: string,
  by: string | null,
  unit: string,
  limit: number,
  used: number,
  held: number,
  remaining: number,
  resetsAt: Millis | null,
  took: number,
]

export interface DecisionBody {
  readonly op: 'reserve' | 'extend'
  readonly step?: number
  readonly feature: string
  readonly plan: string
  readonly policy: number
  readonly outcome: 'allow' | 'partial' | 'wait' | 'deny'
  readonly reason: string
  /** What was asked for in all, and what is held in all after this decision. */
  readonly cost: Micros
  readonly granted: Micros
  readonly estimate?: Quantities | undefined
  readonly granted_estimate?: Quantities | undefined
  readonly from: Split
  readonly expires_at: Millis | null
  readonly limits: readonly LimitLine[]
}
export interface UsageBody {
  readonly op: 'settle' | 'record' | 'expiry'
  readonly feature: string
  readonly endpoint?: string
  readonly quantities: Quantities
  readonly started_at?: Millis
  readonly duration_ms?: Millis
  /** The quantities were counted, and not told by what did the work. */
  readonly estimated?: true
}
/** `[key, dimension or null, start, amount]`: how a window's `used` moved; guards' budgets are keyed by their name. */
export type WindowMove = readonly [key: string, by: string | null, startAt: Millis, amount: Micros]

export interface ChargeBody {
  readonly usage: number
  readonly policy: number
  /** The rate-card line that priced it; absent where the caller stated the cost or no line matched. */
  readonly line?: number
  readonly stated?: true
  readonly unpriced?: readonly string[]
  /** May be negative in a correction; the cover sums to it. */
  readonly cost: Micros
  readonly cover: Split
  readonly windows: readonly WindowMove[]
  /** What went back from the hold to its sources. */
  readonly returned?: Micros
  /** The charge this one corrects, why, and the caller's id for it. */
  readonly corrects?: number
  /** With `corrects`: what the use costs in all after this correction. */
  readonly total?: Micros
  readonly refund?: string
  readonly reason?: string
}
export type BalanceReason =
  | 'issued'
  | 'charge'
  | 'refund'
  | 'expired'
  | 'revoked'
  | 'rollover'
  | 'repaid'
  | 'summary'
export interface BalanceBody {
  readonly from: LedgerAccount
  readonly to: LedgerAccount
  readonly amount: Micros
  readonly reason: BalanceReason
  readonly charge?: number
}
/** What changed outside money: its name and what a reader needs to replay it. */
export interface ChangeBody {
  readonly what: ChangeName
  readonly detail: Readonly<Record<string, unknown>>
}
export const CHANGES = [
  'account_created',
  'plan',
  'status',
  'zone',
  'metadata',
  'override',
  'grant',
  'revoke',
  'hold_closed',
  'low_balance',
  'recurrence',
  'policy',
  'key_created',
  'key_revoked',
  'erased',
  'reset',
  'repair',
  'checkpoint',
  'retained',
] as const
export type ChangeName = (typeof CHANGES)[number]

export type DecisionEntry = EntryHead & { readonly kind: 'decision' } & DecisionBody
export type UsageEntry = EntryHead & { readonly kind: 'usage' } & UsageBody
export type ChargeEntry = EntryHead & { readonly kind: 'charge' } & ChargeBody
export type BalanceEntry = EntryHead & { readonly kind: 'balance' } & BalanceBody
export type ChangeEntry = EntryHead & { readonly kind: 'change' } & ChangeBody
export type Entry = DecisionEntry | UsageEntry | ChargeEntry | BalanceEntry | ChangeEntry

/** The part of an entry that names a person; kept beside the body and covered by its hash. */
export interface PrivatePart {
  readonly salt: string
  readonly subject: Subject
  readonly attributes?: Attributes
  /** The subjects a grant is limited to. */
  readonly scope?: Readonly<Record<string, readonly string[]>>
  /** What a checkpoint says that the journal added up to. */
  readonly state?: CheckpointState
}

/** An account's journal as of one entry, as rows: `ledger/audit/checkpoint.ts` writes and reads them. */
export interface CheckpointState {
  readonly recorded_at: Millis
  readonly books: readonly (readonly [account: string, balance: Micros])[]
  readonly grants: readonly GrantRow[]
  readonly requests: readonly RequestRow[]
  readonly windows: readonly WindowRow[]
  readonly terms: readonly [plan: string | null, status: string | null, zone: string | null]
  readonly overrides: readonly (readonly [
    holder: string,
    name: string,
    limit: Micros | null,
    untilAt: Millis | null,
  ])[]
  readonly erased_overrides: readonly string[]
  readonly repaired: boolean
  /** The checkpoint before this one. */
  readonly checkpoint: number | null
}
export type GrantRow = readonly [
  id: string,
  seq: number,
  kind: string,
  amount: Micros,
  priority: number,
  startsAt: Millis,
  expiresAt: Millis | null,
  features: readonly string[] | null,
  sums: readonly [
    funded: Micros,
    refunded: Micros,
    charged: Micros,
    expired: Micros,
    revoked: Micros,
    repaid: Micros,
    repaidAtOnce: Micros,
    rolled: Micros,
    held: Micros,
  ],
  revokedSeq: number | null,
]
export type RequestRow = readonly [
  id: string,
  firstAt: Millis,
  last: number,
  decision: number | null,
  hold: readonly [granted: Micros, from: Split, expiresAt: Millis | null] | null,
  charge:
    | readonly [
        usage: number,
        seq: number,
        subject: Subject | null,
        standing: Micros,
        refunded: Micros,
        cover: Split,
      ]
    | null,
  closed: string | null,
]
export type WindowRow = readonly [
  holder: string,
  key: string,
  instances: readonly (readonly [startAt: Millis, plus: Micros, minus: Micros, loose: Micros])[],
  told: readonly [seenAt: Millis, endAt: Millis] | null,
]

/** The head of a chain that has no entries yet. */
export function emptyHead(account: string, sha256: Sha256): ChainHead {
  return { seq: 0, hash: sha256(`sluice:${ENTRY_FORMAT}:${account}`) }
}

/** The hash of an entry's text after the one before it. */
export function chainHash(previousHash: string, body: string, sha256: Sha256): string {
  return sha256(`${previousHash}\n${body}`)
}

/** An entry's text with its hash: the text is cut out of what was hashed, so that its pieces are put together once. */
export function chained(
  previousHash: string,
  body: string,
  sha256: Sha256,
): { readonly body: string; readonly hash: string } {
  const text = `${previousHash}\n${body}`
  return { hash: sha256(text), body: text.slice(previousHash.length + 1) }
}

/** Reads an entry's text back. The text is Sluice's own, so it is not checked again here: `audit` does. */
export function readEntry(stored: StoredEntry): Entry {
  return JSON.parse(stored.body) as Entry
}

/** Reads the private part; null where it was erased or never there. */
export function readPrivate(stored: StoredEntry): PrivatePart | null {
  return stored.private === null ? null : (JSON.parse(stored.private) as PrivatePart)
}
