/** Many nodes, one truth: state in a PostgreSQL that any number of processes share. */
import { SluiceError } from '../../errors.ts'
import type { Store, StoreHealth, StoreHost } from '../../store.ts'
import type { Millis } from '../../units.ts'
import {
  type Coalescer,
  CommitError,
  createCoalescer,
  type Limits,
  type Session,
  type Wanted,
} from '../coalesce.ts'
import { type Connection, connect } from './connection.ts'
import { unavailable } from './failure.ts'
import { createParsed } from './parsed.ts'
import { createPool } from './pool.ts'
import * as reader from './reader.ts'
import { dropBefore, lastBefore } from './retain.ts'
import { openMonths, rotate } from './rotate.ts'
import { checkServer, type Migrating, migrate, requireSchema } from './schema.ts'
import { beginSession } from './session.ts'
import { snapshot, snapshots } from './snapshot.ts'
import { keepUsage, usage } from './usage.ts'

export interface PostgresOptions {
  /** `postgres://user:password@host:port/database`, with any parameter that libpq knows. */
  readonly url: string
  /** Whether `open` makes the schema and brings it up to date (the default), or refuses where it is not. */
  readonly schema?: 'migrate' | 'require'
  readonly migrating?: Migrating
  /** In place of the database's clock; for tests. */
  readonly now?: () => Millis
  /** What the store's clock is held against: the node's clocks, or the store's own where `now` is given. */
  readonly wall?: () => Millis
  readonly monotonic?: () => number
  readonly limits?: Limits
  /** Parsed cells kept in memory, with their texts. */
  readonly maxCachedCells?: number
  /** Lines that the log of refusals keeps. */
  readonly maxRefusals?: number
}

/** Batches on their way at once, each on a connection of its own. */
const LANES = 2
/** While one batch is on its way, this many operations must wait for the next to begin. */
const OVERLAP_FROM = 16
const READERS = 4
/** Enough for crowded accounts and open requests: with eight times as many, collecting what they leave took a fifth of the speed. */
const CACHED_CELLS = 8_192
/**
 * A commit takes two round trips whatever it carries. What was locked and read should also be decided: so a batch is bounded by
 * what can be decided in some 10 ms, and by time only where that takes far longer.
 */
const LIMITS: Limits = { maxBatch: 192, maxDecideMs: 25 }
const PROBE_MS = 500

export function postgresStore(options: PostgresOptions): Store {
  const { url, maxRefusals = 100_000 } = options
  const writers = createPool(url, 'sluice', LANES)
  const parsed = createParsed(options.maxCachedCells ?? CACHED_CELLS)
  const passedOver = new Map<string, number>()
  const readers = createPool(url, 'sluice reader', READERS)
  let host: StoreHost | undefined
  let schema: number | undefined
  let closed = false
  let failure: SluiceError | undefined
  let probe: NodeJS.Timeout | undefined
  /** The database's clock as last seen, moved on by this node's own since. */
  let seen: { readonly at: Millis; readonly monotonic: number } | undefined

  const coalescer: Coalescer = createCoalescer(
    { lanes: LANES, overlapFrom: OVERLAP_FROM, begin },
    {
      limits: { ...LIMITS, ...options.limits },
      clocks: {
        wall: options.wall ?? options.now ?? Date.now,
        monotonic: options.monotonic ?? (() => performance.now()),
      },
      host: () => host as StoreHost,
    },
  )

  async function begin(batch: readonly Wanted[]): Promise<Session> {
    try {
      const connection = await writers.take()
      const release = () => writers.give(connection)
      const session = await beginSession(connection, batch, {
        clock: options.now,
        parsed,
        passedOver,
        release,
      })
      noteClock(session.now)
      return { ...session, commit: () => watched(session.commit() as Promise<void>) }
    } catch (error) {
      note(error)
      throw error
    }
  }

  /** Everything goes through here, so that health knows how the last of it went. */
  async function watched<T>(work: Promise<T>): Promise<T> {
    try {
      const result = await work
      note(undefined)
      return result
    } catch (error) {
      note(error)
      throw error
    }
  }

  function note(error: unknown): void {
    if (error === undefined) {
      failure = undefined
      clearTimeout(probe)
      probe = undefined
      return
    }
    if (error instanceof CommitError && error.outcome !== 'unavailable' && error.outcome !== 'unknown') return
    failure = unavailable(error)
    probe ??= setTimeout(() => {
      probe = undefined
      if (!closed) now().catch(() => {})
    }, PROBE_MS).unref()
  }

  const noteClock = (at: Millis): void => {
    seen = { at, monotonic: performance.now() }
  }

  /** On one of the connections that read, which see what is committed. Refusals and totals of usage are written there too. */
  async function read<T>(work: (db: Connection) => Promise<T>): Promise<T> {
    if (host === undefined) throw NOT_OPEN()
    try {
      return await watched(readers.use(work))
    } catch (error) {
      throw unavailable(error)
    }
  }

  async function now(): Promise<Millis> {
    const at = await read(async (db) => (options.now === undefined ? reader.now(db) : options.now()))
    noteClock(at)
    return at
  }

  /** The database's clock without asking it. */
  const about = (): Millis =>
    options.now?.() ?? (seen === undefined ? Date.now() : seen.at + performance.now() - seen.monotonic)

  function health(): StoreHealth {
    const trusted = coalescer.trusts(Math.round(about()))
    const healthy = host !== undefined && failure === undefined
    return {
      ready: healthy && trusted,
      ...(healthy ? (trusted ? {} : { problem: 'clock_suspect' }) : { problem: 'unavailable' }),
      queued: coalescer.queued,
      detail: {
        database: nameOf(url),
        ...(schema === undefined ? {} : { schema }),
        operations_per_s: Math.round(coalescer.rate),
        ...(failure === undefined ? {} : { failure: failure.message }),
      },
    }
  }

  return {
    name: 'postgres',
    cannot: {},
    async open(given) {
      try {
        schema = await prepare(options)
      } catch (error) {
        throw unavailable(error)
      }
      host = given
      coalescer.trusts(await now())
    },
    transact(account, keys, step, priority) {
      if (host === undefined && !closed) return Promise.reject(NOT_OPEN())
      return coalescer.transact(account, keys, step, priority)
    },
    now,
    due: (limit) => read(async (db) => reader.due(db, options.now?.() ?? (await reader.now(db)), limit)),
    accounts: (page) => read((db) => reader.accounts(db, page)),
    cells: (account, prefix, page) => read((db) => reader.cells(db, account, prefix, page)),
    holds: (account, limit) => read((db) => reader.holds(db, account, limit)),
    accountsOfRequest: (requestId, limit) => read((db) => reader.accountsOfRequest(db, requestId, limit)),
    entries: (account, query) => read((db) => reader.entries(db, account, query)),
    journal: (after, limit, kinds) => read((db) => reader.journal(db, after, limit, kinds)),
    usage: (account, ranges) => read((db) => usage(db, account, ranges)),
    keepUsage: (account, revision, change) => read((db) => keepUsage(db, account, revision, change)),
    snapshots: (asked, limit) => read((db) => snapshots(db, asked, limit)),
    async snapshot(account, look) {
      const answer = await read((db) => snapshot(db, account, look))
      if ('thrown' in answer) throw answer.thrown
      return answer.seen
    },
    lastBefore: (instant, page) => read((db) => lastBefore(db, instant, page)),
    async dropEntriesBefore(instant) {
      // One of its own: a large file takes its time to go.
      const db = await connect(url, 'sluice retain', 0)
      try {
        return await dropBefore(db, instant)
      } catch (error) {
        throw unavailable(error)
      } finally {
        await db.end().catch(() => {})
      }
    },
    countHolds: () => read(reader.countHolds),
    logRefusals: (lines) => read((db) => reader.logRefusals(db, lines, maxRefusals)),
    refusals: (account, { requestId, limit }) => read((db) => reader.refusals(db, account, requestId, limit)),
    eraseRefusals: (account, dimension, value) =>
      read((db) => reader.eraseRefusals(db, account, dimension, value)),
    async dropRequestsBefore(instant) {
      const at = await now()
      await read(async (db) => {
        await rotate(db, instant, at)
        await openMonths(db, at)
      })
    },
    acceptClock: () => coalescer.acceptClock(Math.round(about())),
    health,
    async close() {
      closed = true
      await coalescer.close()
      clearTimeout(probe)
      host = undefined
      await Promise.all([writers.close(), readers.close()])
    },
  }
}

/** Looks at the server, and at the schema or brings it and the partitions up to date. Answers the schema's version. */
async function prepare({ url, schema, migrating, now: clock }: PostgresOptions): Promise<number> {
  // One of its own, that waits as long as it takes: another node may be at a long migration.
  const db = await connect(url, 'sluice schema', 0)
  try {
    await checkServer(db)
    if (schema === 'require') return await requireSchema(db, migrating?.folder)
    const now = async () => clock?.() ?? reader.now(db)
    return await migrate(db, now, async () => openMonths(db, await now()), migrating)
  } finally {
    await db.end().catch(() => {})
  }
}

/** For messages: never with a password. */
function nameOf(url: string): string {
  try {
    const { host, pathname } = new URL(url)
    return `${host}${pathname}`
  } catch {
    return 'postgres'
  }
}

const NOT_OPEN = (): SluiceError => new SluiceError('unavailable', 'The store is not open')
