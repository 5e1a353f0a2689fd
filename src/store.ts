/**
 * The contract between the engine and whatever keeps its state.
 *
 * A store keeps two things for each account: *cells*, small values that are replaced, and *entries*, journal lines
 * that are only ever added. It has one way to change them, `transact`, and promises of it:
 *
 * 1. **Serial.** Steps of one account take effect one after another, in the order in which `transact` was called in this
 *    process, and never beside another node's. A step sees everything that was committed before it.
 * 2. **Whole.** A step's writes, entries and erasures are stored together or not at all. A step that throws loses only
 *    its own: others that share its commit are not touched by it.
 * 3. **Durable.** The promise resolves after the commit that covers it is on disk, as far as the database is set to do
 *    so. That holds for steps that write nothing, too: they never show a state that could still be lost.
 * 4. **Repeatable.** A step is pure and may be run more than once; only the last run counts. It may answer `need` for keys
 *    it did not know to ask for, and is run again in the same transaction with those fetched as well.
 * 5. **Bounded.** When too many steps wait, `transact` rejects at once with `overloaded` and a time to retry after.
 *    Sheddable work is refused first, critical work last.
 * 6. **One clock.** `env.now` is the clock of the place where the state lives. A clock that jumped is not trusted:
 *    `transact` rejects with `clock_suspect` until it returns or `acceptClock` is called.
 *
 * The rules are not here: a store never looks into a cell, but for the fields marked *index* in `kernel/cells.ts`
 * (`AccountCell.dueAt`; `RequestCell.expiresAt` and `.createdAt`), and `SystemCell.activePolicy`.
 */
import type {
  AccountCell,
  Cell,
  Cells,
  GrantCell,
  Key,
  PolicyCell,
  RequestCell,
  SubjectCell,
  SystemCell,
} from './kernel/cells.ts'
import type { PolicySet, PriorityClass } from './kernel/plan.ts'
import type { EntryKind, StoredEntry } from './ledger/entries.ts'
import type { Micros, Millis } from './units.ts'

export interface Store {
  /** For messages: `memory`, `sqlite`. */
  readonly name: string
  /** What this store cannot do, and why; the conformance suite skips exactly these. */
  readonly cannot: Readonly<Partial<Record<Ability, string>>>

  /** Opens files or connections, checks them, brings the schema up to date. Called once, before all else. */
  open(host: StoreHost): Promise<void>

  /** Runs one step on one account, under the promises above. */
  transact<T>(account: string, keys: readonly Key[], step: Step<T>, priority?: PriorityClass): Promise<T>

  /** The store's clock, now. */
  now(): Promise<Millis>

  /** Accounts that may have a hold past its end, the one longest past first. */
  due(limit: number): Promise<readonly { readonly account: string; readonly dueAt: Millis }[]>

  /** Accounts in order of id, after the one given; `@system` is not among them. */
  accounts(page: Page): Promise<readonly AccountCell[]>

  /** Cells of one account whose key begins with a prefix, in order of key. */
  cells(account: string, prefix: string, page: Page): Promise<readonly KeyedCell[]>

  /** Open requests of one account, in order of end. */
  holds(account: string, limit: number): Promise<readonly RequestCell[]>

  /** Accounts that know a request of this id, at most `limit`. */
  accountsOfRequest(requestId: string, limit: number): Promise<readonly string[]>

  /** One account's entries from a number on, ascending; or descending to it. */
  entries(account: string, query: EntryQuery): Promise<readonly StoredEntry[]>

  /** Entries of all accounts in commit order, without gaps, after a position that an earlier page gave. */
  journal(
    after: string | undefined,
    limit: number,
    kinds?: readonly EntryKind[],
  ): Promise<readonly JournalRow[]>

  /**
   * Accounts as they all stood at one moment, with the entries after a number of each, and at most `limit` of anything: for
   * audits of many small accounts. One that has more of something is told by `whole`, and is to be read by `snapshot`.
   */
  snapshots(asked: readonly SnapshotOf[], limit: number): Promise<readonly AccountSnapshot[]>

  /**
   * One account, read page by page as it stood at one moment. The moment lasts `SNAPSHOT_MS` at most, so that nothing is kept
   * open for long behind a server's back: what takes longer is `unavailable`.
   */
  snapshot<T>(account: string, read: (moment: Moment) => Promise<T>): Promise<T>

  /** What is kept of an account's usage in totals, with those that begin in these ranges, all as of one moment. */
  usage(account: string, ranges: readonly UsageRange[]): Promise<UsageKept>
  /**
   * Replaces totals, drops others and moves `through`, in one transaction, where the account's totals still stand at this
   * revision. Where somebody else was first nothing is changed, and false is answered.
   */
  keepUsage(account: string, revision: number, change: UsageChange): Promise<boolean>

  /** How many holds are open in all accounts. */
  countHolds(): Promise<number>

  /** Adds lines to the bounded log of refusals, outside every chain. A crash may lose them. */
  logRefusals(lines: readonly RefusalLine[]): Promise<void>
  /** The log's lines of an account, newest first. */
  refusals(
    account: string,
    query: { readonly requestId?: string; readonly limit: number },
  ): Promise<readonly RefusalLine[]>
  /** Forgets the log's lines of a subject. */
  eraseRefusals(account: string, dimension: string, value: string): Promise<void>

  /**
   * Accounts that have entries recorded before an instant, in order of id, with the number of the last such entry of each; never
   * `@system`. The instant is the beginning of a month in UTC, here and below.
   */
  lastBefore(instant: Millis, page: Page): Promise<readonly LastBefore[]>
  /**
   * Lets go of all entries recorded before an instant, but those of `@system`, while others write. It may be interrupted
   * anywhere and be called again.
   */
  dropEntriesBefore(instant: Millis): Promise<Dropped>

  /** Drops closed requests created before an instant, in bulk; answers after a bounded amount of work. */
  dropRequestsBefore(instant: Millis): Promise<void>

  /** Takes the clock as it now stands for the truth. */
  acceptClock(): void

  /** What `/readyz` and `/metrics` show. */
  health(): StoreHealth

  /** Finishes what was accepted, refuses what comes after, and lets go of files and connections. */
  close(): Promise<void>
}

export type Ability = 'durable' | 'many_nodes' | 'retain'

/** What the engine lends to its store. */
export interface StoreHost {
  /** Compiles a stored policy text. Called when a commit sees an active version that this node has not compiled yet. */
  compilePolicy(version: number, text: string): import('./kernel/plan.ts').Policy
  /** Told once per commit: how many operations shared it, and how long it took. */
  onCommit?(operations: number, entries: number, durationMs: number): void
}

export interface Env {
  readonly now: Millis
  readonly policy: PolicySet
  readonly readings: Readings
}
/** Readings of shared pools by name; there are none yet. */
export type Readings = Readonly<Record<string, number>>

export type Step<T> = (cells: Cells, env: Env) => StepResult<T>
export type StepResult<T> = Done<T> | { readonly need: readonly Key[] }
export interface Done<T> {
  readonly result: T
  readonly writes: readonly Write[]
  readonly entries: readonly StoredEntry[]
  /** Numbers of entries whose private part goes. */
  readonly erase?: readonly number[]
}
/** Replaces a cell; null removes it. */
export interface Write {
  readonly key: Key
  readonly cell: Cell | null
}

export interface Page {
  readonly after?: string
  readonly limit: number
}
export interface KeyedCell {
  readonly key: Key
  readonly cell: Cell
}
export interface SnapshotOf {
  readonly account: string
  readonly afterSeq: number
}
export interface AccountSnapshot {
  readonly account: AccountCell | SystemCell | null
  readonly subjects: readonly SubjectCell[]
  readonly grants: readonly GrantCell[]
  /** Open and closed. */
  readonly requests: readonly RequestCell[]
  readonly entries: readonly StoredEntry[]
  /** Whether that is all there is. */
  readonly whole: boolean
}
/** How long a moment is held: a transaction that stays open keeps a database from tidying up. */
export const SNAPSHOT_MS: Millis = 5_000
/** What can be read of an account as it stood at one moment. */
export interface Moment {
  readonly account: AccountCell | SystemCell | null
  entries(query: EntryQuery): Promise<readonly StoredEntry[]>
  /** In order of key. */
  subjects(page: Page): Promise<readonly KeyedCell[]>
  /** Open requests in an order of the store's own, after one that an earlier page gave. */
  holds(after: RequestCell | undefined, limit: number): Promise<readonly RequestCell[]>
  /** A policy version of `@system`. */
  policy(version: number): Promise<PolicyCell | null>
}
export interface LastBefore {
  readonly account: string
  readonly seq: number
}
export interface Dropped {
  /** As `2026-03`, oldest first. */
  readonly months: readonly string[]
}
export interface EntryQuery {
  readonly from?: number
  readonly to?: number
  readonly kinds?: readonly EntryKind[]
  readonly newestFirst?: boolean
  readonly limit: number
}
export interface JournalRow {
  readonly account: string
  /** Opaque; greater for what was committed later. */
  readonly position: string
  readonly entry: StoredEntry
}
/**
 * Totals of an account's usage: what its charges up to the entry `through` add up to. They say nothing that the entries do
 * not say, and are written apart from them: whoever wants it exact adds the entries after `through`. The sums are made by
 * `engine/usage/`; a store looks into nothing but the key.
 */
export interface UsageKept extends UsageState {
  /** Grows by one with each change; 0 before the first. */
  readonly revision: number
  /** In no order. */
  readonly totals: readonly UsageTotal[]
}
export interface UsageState {
  /** The number of the last entry that is counted; 0 before the first. */
  readonly through: number
  /** Where the earliest and the latest total begin, as `keepUsage` was told; null before the first. */
  readonly earliestAt: Millis | null
  readonly latestAt: Millis | null
}
/** Totals of this length that begin in `[from, to)`. Ranges of one call do not overlap. */
export interface UsageRange {
  readonly spanMs: Millis
  readonly from: Millis
  readonly to: Millis
}
export interface UsageKey {
  readonly spanMs: Millis
  readonly startAt: Millis
  /** What the uses have in common: a JSON object of names and values, in an order of its own. */
  readonly group: string
}
export interface UsageTotal extends UsageKey {
  readonly requests: number
  readonly charged: Micros
  /** By name, in micro-units and µCU. */
  readonly quantities: Readonly<Record<string, number>>
  readonly sources: Readonly<Record<string, Micros>>
  /** When the earliest and the latest of the uses was. */
  readonly firstAt: Millis
  readonly lastAt: Millis
  /** The least and the greatest number of the entries that were counted. */
  readonly firstSeq: number
  readonly lastSeq: number
}
export interface UsageChange extends UsageState {
  readonly totals: readonly UsageTotal[]
  /** None of them is among `totals`. */
  readonly dropped: readonly UsageKey[]
}
/** One refusal: the first of its account, subject, reason and second, and how many more like it came in that second. */
export interface RefusalLine {
  readonly account: string
  readonly requestId: string
  readonly subject: Readonly<Record<string, string>>
  readonly reason: string
  readonly at: Millis
  readonly count: number
  /** What was asked for and the whole answer, as JSON; a store does not look into it. */
  readonly answer: string
}
export interface StoreHealth {
  readonly ready: boolean
  /** An error code of `errors.ts` where it is not. */
  readonly problem?: 'clock_suspect' | 'unavailable'
  readonly queued: number
  readonly detail: Readonly<Record<string, string | number>>
}
