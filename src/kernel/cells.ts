/**
 * The small pieces of state that change. A cell is plain JSON data under a key inside its account; a store keeps it and
 * never reads it, but for the fields marked *index*. Steps never change a cell they were handed: they copy and replace.
 */

import type { Books } from '../ledger/books.ts'
import type { ChainHead, EntryKind, StoredEntry } from '../ledger/entries.ts'
import type { Grant, Subject } from '../ledger/grants.ts'
import type { Attributes, Quantities } from '../ledger/price.ts'
import type { Micros, Millis } from '../units.ts'

/** The format that this code writes. A node refuses cells that carry a newer one. */
export const CELL_FORMAT = 1

/** What `transact` fetches: cells, journal entries by number, or the account's holds past their end. */
export type Key =
  | 'account'
  | `subject:${string}`
  | `request:${string}`
  | `grant:${string}`
  | `policy:${number}`
  | `key:${string}`
  | `entry:${number}`
  | `due:${number}`

export const subjectKey = (dimension: string, value: string): Key => `subject:${dimension}=${value}`
export const requestKey = (id: string): Key => `request:${id}`
export const grantKey = (id: string): Key => `grant:${id}`

/** `due:<n>`: the account’s open holds whose end lies at or before now, earliest first and at one instant by id, at most n of them. */
export interface DueHolds {
  readonly requests: readonly RequestCell[]
  /** The earliest end among open holds not in the list; null where there is none. */
  readonly nextAt: Millis | null
}

export type Cell = AccountCell | SystemCell | SubjectCell | RequestCell | GrantCell | PolicyCell | KeyCell
/** What stands under each key asked for; null where there is nothing. A key that is not in the map was not fetched. */
export type Cells = ReadonlyMap<Key, Cell | StoredEntry | DueHolds | null>

export type AccountStatus = 'active' | 'suspended' | 'closed'

export interface AccountCell {
  readonly v: number
  readonly id: string
  plan: string
  status: AccountStatus
  zone: string
  /** Where periods of `account` windows are counted from, and whether the caller gave it. */
  readonly anchorAt: Millis
  readonly anchored: boolean
  /** Since when policy, plan and zone have stood as they are: windows that open start no earlier. */
  terms?: { readonly policy: number; readonly sinceAt: Millis }
  metadata: Readonly<Record<string, string>>
  readonly createdAt: Millis
  /** Hash of what was asked when it was created; empty where its first request made it. */
  readonly meaning: string
  /** Grows with each change of plan, status, zone, metadata or overrides: the entity tag. */
  revision: number
  /** The latest instant this account has seen: time never runs backwards inside an account. */
  lastAt: Millis
  head: ChainHead
  counters: Counters
  grants: Grant[]
  recurrences: Readonly<Record<string, Recurrence>>
  /** Numbers the grants that recur. */
  issuedCount: number
  books: Books
  /** How many values each dimension has a live cell for. */
  subjectCounts: Readonly<Record<string, number>>
  overrides: Record<string, Override>
  /** How many of the plan's low-balance thresholds credits have fallen to or below. */
  lowSteps: number
  openHolds: number
  /** *index*: no hold of this account ends before this instant; null without open holds. */
  dueAt: Millis | null
  /** Number of the newest checkpoint, which alone still has its state, and of the newest erasure of a person. */
  checkpoint?: number
  erased?: number
  /** Where its journal begins since older entries were let go: number of the entry that says what stood, and as of which. */
  retained?: { readonly seq: number; readonly asOf: number; readonly before: Millis }
}

/** The pseudo-account `@system` keeps policy versions and keys, with a chain of its own. */
export interface SystemCell {
  readonly v: number
  readonly id: '@system'
  lastAt: Millis
  head: ChainHead
  /** The policy version in force; 0 before the first. */
  activePolicy: number
  /** Entries that were recorded before this may have been let go. */
  retainedBefore?: Millis
  readonly dueAt: null
}
export const SYSTEM = '@system'

export interface SubjectCell {
  readonly v: number
  readonly dimension: string
  readonly value: string
  counters: Counters
  overrides: Record<string, Override>
}

/** State of guards and windows, keyed by their names; each lives in the account's cell or in one subject's. */
export interface Counters {
  windows: Readonly<Record<string, WindowState>>
  rates: Readonly<Record<string, RateState>>
  /** Ends of the open holds under each concurrency guard, ascending. */
  concurrency: Readonly<Record<string, readonly Millis[]>>
}

/** `[startAt, endAt)`, fixed when it opened. `held` is never part of `used`. */
export interface WindowState {
  readonly startAt: Millis
  readonly endAt: Millis
  readonly used: Micros
  readonly held: Micros
}

export type RateState = GcraState | SlidingState | FixedState
/** The level at `at` is exactly `level − drained/per`, in the meter's units; it drains `limit` per `perMs`. */
export interface GcraState {
  level: number
  /** Numerator of what has drained beyond whole units, in `[0, perMs)`. */
  drained: number
  at: Millis
  /** `[at, level]`, ascending in both, at most 8: since `at` the level has never been lower. Kept where amounts are given back. */
  lows?: [Millis, number][]
}
export interface SlidingState {
  /** `[at, amount]`, ascending. */
  log: [Millis, number][]
}
export interface FixedState {
  startAt: Millis
  used: number
}

export interface Override {
  readonly limit: Micros
  readonly untilAt: Millis | null
  readonly reason: string
}

export interface Recurrence {
  /** The grant of the running period; at its end, what is left rolls over. */
  readonly grantId: string
  /** When the next one is due; null for a grant that comes once. */
  readonly nextAt: Millis | null
}

export type RequestState =
  | 'open'
  | 'settled'
  | 'released'
  | 'expired_released'
  | 'expired_charged'
  | 'recorded'

export interface RequestCell {
  readonly v: number
  readonly id: string
  state: RequestState
  readonly createdAt: Millis
  /** *index*: the hold's end while it is open, else null. */
  expiresAt: Millis | null
  subject: Subject
  readonly feature: string
  attributes: Attributes
  /** Makes the hashes of subject and meaning unguessable; erased with the person. */
  salt: string
  /** Salted hashes of what each call asked, so that a repeat is told from a conflict. */
  meanings: { reserve?: string; step?: string; exit?: string }
  /** Which call closed it: a repeat of that call is answered again. */
  exitBy?: 'settle' | 'record' | 'release' | 'expiry'
  /** The policy version whose prices this request keeps. */
  policyVersion: number
  /** Once it has closed undefined, not deleted: an object that lost a property takes thrice as long to write. */
  hold?: Hold | undefined
  step: number
  progress?: Progress
  charge?: Charged
  /** Given back by the call that closed the hold. */
  returned: Micros
  refunds: [id: string, seq: number, meaning: string][]
  /** Numbers of its entries: the first decision, the last extend's, and the newest in its story. */
  seqs: { decision?: number; step?: number; last?: number }
  /** What whoever does the work wrote down for itself. */
  note?: string | undefined
}

export interface Hold {
  readonly reservedAt: Millis
  readonly maxEndAt: Millis
  readonly onExpiry: 'release' | 'charge'
  granted: Micros
  /** What is held as quantities, where an estimate was priced. */
  estimate?: Quantities | undefined
  parts: Part[]
  guards: GuardHold[]
}

/** What the caller said has been used so far. */
export interface Progress {
  readonly costMicros: Micros
  readonly quantities?: Quantities
}

/** A piece of a hold or of a charge: which source, how much, and the window instances it stands in. */
export interface Part {
  /** `allowance:<name>`, `grant:<id>`, `overage`, `absorbed` or `debt`. */
  readonly source: string
  amount: Micros
  /** The dimension whose subject has the windows; absent for the account's own. */
  readonly by?: string
  readonly windows?: readonly WindowRef[]
}
/** Which instance of a window: its state's key and start. A start of 0 is an instance that has ended. */
export type WindowRef = readonly [key: string, startAt: Millis]

/** What a guard counts for this request; a rate by what its state is kept under. `at` is when a rate admitted it, or the start of a budget's window. */
export interface GuardHold {
  readonly kind: 'rate' | 'concurrency' | 'budget'
  readonly name: string
  readonly by?: string
  amount: number
  at: Millis
}

/** The charge as it stands after all corrections. */
export interface Charged {
  readonly usageSeq: number
  readonly seq: number
  /** What stands charged, after refunds, and what they have given back. */
  cost: Micros
  refunded: Micros
  /** Covering parts in the order they were drawn; corrections take from the last. */
  parts: Part[]
  guards: GuardHold[]
}

/** Recognises a grant's id for good, after the grant itself has left the account's cell. */
export interface GrantCell {
  readonly v: number
  readonly id: string
  /** Hash of what was asked, so that a repeat is told from a conflict; empty for grants that Sluice issued itself. */
  readonly meaning: string
  readonly salt: string
  /** The grant as it was issued. */
  readonly grant: Grant
  /** What of it repaid debt at once. */
  readonly repaid: Micros
  /** Number of the entry that issued it, and of the revocation. */
  readonly seq: number
  readonly revokedSeq?: number
}

export interface PolicyCell {
  readonly v: number
  readonly version: number
  readonly text: string
  readonly at: Millis
  readonly actor: string
  readonly seq: number
}

export type Role = 'admin' | 'meter' | 'read' | 'call'
export interface KeyCell {
  readonly v: number
  readonly id: string
  readonly role: Role
  /** SHA-256 of the secret, in hex. The secret itself is kept nowhere. */
  readonly secretHash: string
  readonly account?: string
  readonly subject?: Subject
  readonly createdAt: Millis
  readonly expiresAt: Millis | null
  readonly revokedAt: Millis | null
}

export type { EntryKind }
