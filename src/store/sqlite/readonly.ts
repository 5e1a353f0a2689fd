import { SluiceError } from '../../errors.ts'
import type { AccountCell, GrantCell, PolicyCell, RequestCell, SubjectCell } from '../../kernel/cells.ts'
import type { AccountSnapshot, Moment, SnapshotOf, Store, StoreHost } from '../../store.ts'
import type { Millis } from '../../units.ts'
import { CommitError, createCoalescer, SYSTEM_ACCOUNT, withinMoment } from '../coalesce.ts'
import { createCache } from './cache.ts'
import { unavailable } from './failure.ts'
import { openReading, type Reading } from './reader.ts'
import { createSessions, type Sessions } from './session.ts'

const RETAIN =
  'The journal of an SQLite file is one table, and to delete from it would write every page of it anew; the file would not shrink.'
export const CANNOT = {
  many_nodes: 'A file of SQLite has one process that writes it.',
  retain: RETAIN,
}
const refuseToRetain = async (): Promise<never> => {
  throw new SluiceError('invalid', RETAIN, { remedy: 'Use PostgreSQL, which lets go of whole months.' })
}

type Reads = Pick<
  Store,
  | 'due'
  | 'snapshots'
  | 'snapshot'
  | 'countHolds'
  | 'lastBefore'
  | 'dropEntriesBefore'
  | 'accounts'
  | 'cells'
  | 'holds'
  | 'accountsOfRequest'
  | 'entries'
  | 'journal'
  | 'refusals'
  | 'usage'
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
  const listed = async (prefix: string): Promise<void> => {
    try {
      reading().refresh()
      await reading().listRequests(prefix)
    } catch (error) {
      throw unavailable(error, path)
    }
  }
  return {
    due: (limit) => read((from) => from.due(clock(), limit)),
    accounts: (page) => read((from) => from.accounts(page)),
    async cells(account, prefix, page) {
      await listed(prefix)
      return read((from) => from.cells(account, prefix, page))
    },
    holds: (account, limit) => read((from) => from.openHolds(account, from.idOf(account), limit).requests),
    accountsOfRequest: (requestId, limit) => read((from) => from.accountsOfRequest(requestId, limit)),
    async snapshots(asked, limit) {
      await listed(REQUESTS)
      return read((from) => from.atOneMoment(() => asked.map((one) => snapshotOf(from, one, limit))))
    },
    snapshot: (account, look) => snapshot(path, account, look),
    lastBefore: refuseToRetain,
    dropEntriesBefore: refuseToRetain,
    countHolds: () => read((from) => from.countHolds()),
    usage: (account, ranges) => read((from) => from.atOneMoment(() => from.usage(account, ranges))),
    entries: (account, query) => read((from) => from.entries(account, query)),
    journal: (after, limit, kinds) => read((from) => from.journal(after, limit, kinds)),
    refusals: (account, { requestId, limit }) => read((from) => from.refusals(account, requestId, limit)),
  }
}

const REQUESTS = 'request:'

function snapshotOf(from: Reading, { account, afterSeq }: SnapshotOf, limit: number): AccountSnapshot {
  const under = (prefix: string) => from.cells(account, prefix, { limit: limit + 1 }).map(({ cell }) => cell)
  const one = {
    account: (from.account(account)?.row?.cell as AccountCell | undefined) ?? null,
    subjects: under('subject:') as SubjectCell[],
    grants: under('grant:') as GrantCell[],
    requests: under(REQUESTS) as RequestCell[],
    entries: from.entries(account, { from: afterSeq + 1, limit: limit + 1 }),
  }
  const most = Math.max(one.subjects.length, one.grants.length, one.requests.length, one.entries.length)
  return { ...one, whole: most <= limit }
}

/** On a connection of its own: what batches read meanwhile on theirs must not stand still. */
async function snapshot<T>(path: string, account: string, read: (moment: Moment) => Promise<T>): Promise<T> {
  const within = withinMoment(account)
  let from: Reading | undefined
  try {
    from = openReading(path)
    from.beginSnapshot()
    from.refresh()
  } catch (error) {
    from?.close()
    throw unavailable(error, path)
  }
  const reading = from
  const inTime = <R>(work: () => R): Promise<R> =>
    within(() => {
      try {
        return work()
      } catch (error) {
        throw unavailable(error, path)
      }
    })
  try {
    return await read({
      account: (reading.account(account)?.row?.cell as AccountCell | undefined) ?? null,
      entries: (query) => inTime(() => reading.entries(account, query)),
      subjects: (page) => inTime(() => reading.cells(account, 'subject:', page)),
      holds: (after, limit) => inTime(() => reading.holdPage(account, reading.idOf(account), after, limit)),
      policy: (version) =>
        inTime(() => {
          const row = reading.cell(SYSTEM_ACCOUNT, reading.idOf(SYSTEM_ACCOUNT), `policy:${version}`)
          return (row?.cell as PolicyCell | undefined) ?? null
        }),
    })
  } finally {
    reading.close()
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
    keepUsage: refuse,
    acceptClock: () => {},
    health: () => ({ ready: opened !== undefined, queued: coalescer.queued, detail: { path } }),
    async close() {
      await coalescer.close()
      opened?.reading.close()
      opened = undefined
    },
  }
}
