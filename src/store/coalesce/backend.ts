/**
 * What a database gives the coalescer. Everything that may wait on a network can answer with a promise; a backend that
 * reads synchronously (memory, SQLite) never does, and then no promise is made for any operation but its caller's own.
 */
import type { SluiceError } from '../../errors.ts'
import type { Cell, Key, RequestCell } from '../../kernel/cells.ts'
import type { StoredEntry } from '../../ledger/entries.ts'
import type { Millis } from '../../units.ts'

export interface Backend {
  /** Batches in flight at once. No account is in two of them, but where commits stand in order. */
  readonly lanes: number
  /**
   * Whether commits stand in the order in which they were asked for, and one that fails takes with it all that were asked
   * for until it is told: those fail as `passed_over`. Then a crowded account's next batch is decided on the last one's
   * changes while those are on their way.
   */
  readonly inOrder?: boolean
  /** While another batch is in flight, how many operations must wait before one more is worth its own commit. */
  readonly overlapFrom: number
  /**
   * Begins a batch: takes the locks, reads the clock, and where reading waits, fetches what the operations name and
   * the system account's cell. Throws or rejects with `CommitError` or `SluiceError`; then nothing has happened.
   */
  begin(batch: readonly Wanted[]): Session | Promise<Session>
}

/** One account's part of a batch, before it is decided. */
export interface Wanted {
  readonly account: string
  readonly ops: readonly { readonly keys: readonly Key[]; readonly extra: readonly Key[] | undefined }[]
}

/** One batch: its reads, then its one commit. */
export interface Session {
  readonly now: Millis
  /** Reads one account as it was committed last. */
  reader(account: string): Reader
  /** Fetches what a reader did not have. Never called on a backend whose readers always answer. */
  fetch(missing: readonly Missing[]): Promise<void>
  /** Takes what one account's steps ask for, at most once for each account, and tells its size in bytes. */
  stage(change: Change): number
  /** Makes everything staged durable, or throws `CommitError`. A plain return means that it is. */
  commit(): Promise<void> | undefined
  /** Accounts that another node has at this moment: their operations go back into the queue, or are told the error. */
  readonly away?: ReadonlyMap<string, SluiceError | null>
  /** Ends a batch that has nothing to write, or that will not be written. */
  abandon(): void
}

/**
 * What stands under a key, from committed batches only; undefined where it has to be fetched first. For `due:<n>` it is
 * the account's first n open holds by end, whatever the time: what is due now follows from them and from the batch.
 */
export type Reader = (key: Key) => Cell | StoredEntry | OpenHolds | null | undefined

export interface OpenHolds {
  /** By end, then by id. */
  readonly requests: readonly RequestCell[]
  /** No open hold of the account is missing from the list. */
  readonly complete: boolean
}

export interface Missing {
  readonly account: string
  readonly key: Key
}

/** All that a batch changes in one account. */
export interface Change {
  readonly account: string
  readonly writes: ReadonlyMap<Key, Cell | null>
  readonly entries: readonly StoredEntry[]
  /** Numbers of entries committed earlier whose private part goes. */
  readonly erase: ReadonlySet<number> | undefined
}

/**
 * How a commit failed. `refused`: the database will not take this data, so something in the batch is to blame.
 * `unavailable`: it can write nothing now. `unknown`: it may have been committed. `passed_over`: it was not tried, because
 * one before it failed.
 */
export type CommitOutcome = 'refused' | 'unavailable' | 'unknown' | 'passed_over'

export class CommitError extends Error {
  override readonly name = 'CommitError'
  readonly outcome: CommitOutcome
  /** What the callers are told where it ends here. */
  readonly answer: SluiceError

  constructor(outcome: CommitOutcome, answer: SluiceError) {
    super(answer.message, { cause: answer })
    this.outcome = outcome
    this.answer = answer
  }
}
