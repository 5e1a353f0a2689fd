import { SluiceError } from '../../errors.ts'
import type { AccountCell, GrantCell, SubjectCell } from '../../kernel/cells.ts'
import type { AccountSnapshot, Store, StoreHost } from '../../store.ts'
import type { Millis } from '../../units.ts'
import { CommitError, createCoalescer } from '../coalesce.ts'
import { createCache } from './cache.ts'
import { unavailable } from './failure.ts'
import { openReading, type Reading } from './reader.ts'
import { createSessions, type Sessions } from './session.ts'

export const CANNOT = { many_nodes: 'A file of SQLite has one process that writes it.' }

type Reads = Pick<
  Store,
  | 'due'
  | 'snapshot'
  | 'countHolds'
  | 'accounts'
  | 'cells'
  | 'holds'
  | 'accountsOfRequest'
  | 'entries'
  | 'journal'
  | 'refusals'
>

/** The contract's readers over one connection. */
export function readsOf(reading: () => Reading, path: string, clock: () => Millis): Reads {
  const read = async <T>(work: (reading: Reading) => T): Promise<T> => {
    try {
      const from = reading()
      from.refresh()
      return work(from)
    } catch (error) {
      throw unavailable(error, path)
    }
  }
  return {
    due: (limit) => read((from) => from.due(clock(), limit)),
    accounts: (page) => read((from) => from.accounts(page)),
    async cells(account, prefix, page) {
      try {
        reading().refresh()
        await reading().listRequests(prefix)
      } catch (error) {
        throw unavailable(error, path)
      }
      return read((from) => from.cells(account, prefix, page))
    },
    holds: (account, limit) => read((from) => from.openHolds(account, from.idOf(account), limit).requests),
    accountsOfRequest: (requestId, limit) => read((from) => from.accountsOfRequest(requestId, limit)),
    snapshot: (account, afterSeq) => read((from) => snapshotOf(from, account, afterSeq)),
    countHolds: () => read((from) => from.countHolds()),
    entries: (account, query) => read((from) => from.entries(account, query)),
    journal: (after, limit, kinds) => read((from) => from.journal(after, limit, kinds)),
    refusals: (account, { requestId, limit }) => read((from) => from.refusals(account, requestId, limit)),
  }
}

/** Bigger than any account has of anything. */
const ALL = Number.MAX_SAFE_INTEGER

/** One read transaction over all of it; where a batch has one open, that one. */
function snapshotOf(from: Reading, account: string, afterSeq: number): AccountSnapshot {
  const own = from.snapshot()
  try {
    const under = (prefix: string) => from.cells(account, prefix, { limit: ALL }).map(({ cell }) => cell)
    return {
      account: (from.account(account)?.row?.cell as AccountCell | undefined) ?? null,
      subjects: under('subject:') as SubjectCell[],
      grants: under('grant:') as GrantCell[],
      holds: from.openHolds(account, from.idOf(account), ALL).requests,
      entries: from.entries(account, { from: afterSeq + 1, limit: ALL }),
    }
  } finally {
    if (own) from.endSnapshot()
  }
}

/**
 * The whole contract on a file that another process may be serving: no lock, no thread, and nothing is ever written. A
 * step that only looks runs as it does everywhere; one that asks for a write is refused.
 */
export function sqliteReader(options: { readonly path: string; readonly now?: () => Millis }): Store {
  const { path, now: clock = Date.now } = options
  let opened: { readonly host: StoreHost; readonly reading: Reading; readonly sessions: Sessions } | undefined
  const readOnly = () =>
    new SluiceError('unavailable', `${path} was opened for reading only`, {
      remedy: 'Open it for writing, or ask the server that holds it.',
    })
  const refuse = async (): Promise<never> => {
    throw readOnly()
  }
  const live = () => {
    if (opened === undefined) throw new SluiceError('unavailable', 'The store is not open')
    return opened
  }
  const coalescer = createCoalescer(
    {
      lanes: 1,
      overlapFrom: 1,
      begin() {
        // What another process has committed meanwhile is seen by every batch.
        live().sessions.refresh()
        return live().sessions.begin(clock())
      },
    },
    { clocks: { wall: clock, monotonic: () => performance.now() }, host: () => live().host },
  )
  return {
    name: 'sqlite',
    cannot: CANNOT,
    async open(host) {
      try {
        const reading = openReading(path)
        const write = () => Promise.reject(new CommitError('unavailable', readOnly()))
        opened = { host, reading, sessions: createSessions({ reading, cache: createCache(1024), write }) }
      } catch (error) {
        throw unavailable(error, path)
      }
    },
    transact: coalescer.transact,
    now: async () => clock(),
    ...readsOf(() => live().reading, path, clock),
    logRefusals: refuse,
    eraseRefusals: refuse,
    dropRequestsBefore: refuse,
    acceptClock: () => {},
    health: () => ({ ready: opened !== undefined, queued: coalescer.queued, detail: { path } }),
    async close() {
      await coalescer.close()
      opened?.reading.close()
      opened = undefined
    },
  }
}
