/**
 * The embedded default: one process, one file. This thread decides and reads; a thread of its own writes and waits for
 * the disk, so that neither a commit nor a checkpoint holds up the event loop. README.md has the layout and figures.
 */
import { existsSync, mkdirSync } from 'node:fs'
import { dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { SluiceError } from '../../errors.ts'
import type { RefusalLine, Store, StoreHealth, StoreHost } from '../../store.ts'
import type { Millis } from '../../units.ts'
import { type Coalescer, CommitError, createCoalescer, type Limits } from '../coalesce.ts'
import { createCache } from './cache.ts'
import { checkHeader, checkPages } from './check.ts'
import { unavailable } from './failure.ts'
import { lockFile } from './lock.ts'
import { openReading, type Reading } from './reader.ts'
import { CANNOT, readsOf } from './readonly.ts'
import { checkIdentity, migrate, WRITER_SETTINGS } from './schema.ts'
import { createSessions, type Sessions } from './session.ts'
import { startWriter, type Writer } from './writer.ts'

export { sqliteReader } from './readonly.ts'

export interface SqliteOptions {
  /** The file; its folder is made where it is missing. Beside it stand `-wal`, `-shm` and `.lock`. */
  readonly path: string
  /** The store's clock; the machine's by default. */
  readonly now?: () => Millis
  /** What the store's clock is held against: the node's clocks, or the store's own where `now` is given. */
  readonly wall?: () => Millis
  readonly monotonic?: () => number
  readonly limits?: Limits
  /** How many batches that wait for each other one transaction takes; default all. */
  readonly maxJoined?: number
  /** Parsed cells kept in memory, about 2 KB each. */
  readonly maxCachedCells?: number
  /** Lines that the log of refusals keeps. */
  readonly maxRefusals?: number
  /** How long to wait at start for the check of a large file's pages. */
  readonly checkMs?: number
  /** Pages of 4 KB that the file may have. */
  readonly maxPages?: number
}

/** Everything that is there between `open` and `close`. */
interface Opened {
  readonly host: StoreHost
  readonly lock: { release(): void }
  readonly reading: Reading
  readonly writer: Writer
  readonly sessions: Sessions
  readonly check: { stop(): void }
}

/** How often writing is tried again after it has failed, so that readiness returns without traffic. */
const PROBE_MS = 500

export function sqliteStore(options: SqliteOptions): Store {
  const clock = options.now ?? Date.now
  let opened: Opened | undefined
  let failure: SluiceError | undefined
  /** What the check of a large file found after the store had opened. */
  let damage: SluiceError | undefined
  let probe: NodeJS.Timeout | undefined
  let closed = false

  const live = (): Opened => {
    if (opened === undefined) throw NOT_OPEN()
    if (damage !== undefined) throw damage
    return opened
  }
  const coalescer: Coalescer = createCoalescer(
    { lanes: LANES, overlapFrom: OVERLAP_FROM, inOrder: true, begin: () => live().sessions.begin(clock()) },
    {
      limits: options.limits,
      clocks: { wall: options.wall ?? clock, monotonic: options.monotonic ?? (() => performance.now()) },
      host: () => live().host,
    },
  )
  const refusalLog = createRefusalLog(
    async (lines) => void (await live().writer.ask({ what: 'refusals', lines })),
  )

  /** Every write goes through here, so that health knows how the last one went. */
  async function watched<T>(writing: Promise<T>): Promise<T> {
    try {
      const written = await writing
      failure = undefined
      clearTimeout(probe)
      probe = undefined
      return written
    } catch (error) {
      if (error instanceof CommitError && (error.outcome === 'unavailable' || error.outcome === 'unknown')) {
        failure = error.answer
        probeLater()
      }
      throw error
    }
  }

  function probeLater(): void {
    probe ??= setTimeout(() => {
      probe = undefined
      if (opened !== undefined) watched(opened.writer.ask({ what: 'probe', now: clock() })).catch(() => {})
    }, PROBE_MS).unref()
  }

  function health(): StoreHealth {
    const trusted = coalescer.trusts(clock())
    const problem = failure ?? damage
    const healthy = opened !== undefined && problem === undefined
    return {
      ready: healthy && trusted,
      ...(healthy ? (trusted ? {} : { problem: 'clock_suspect' }) : { problem: 'unavailable' }),
      queued: coalescer.queued,
      detail: {
        path: options.path,
        operations_per_s: Math.round(coalescer.rate),
        cached_accounts: opened?.sessions.cached ?? 0,
        ...(problem === undefined ? {} : { failure: problem.message }),
      },
    }
  }

  return {
    name: 'sqlite',
    cannot: CANNOT,
    async open(host) {
      opened = await openAll(
        options,
        host,
        clock(),
        (error) => {
          damage = error
        },
        watched,
      )
      coalescer.trusts(clock())
    },
    transact(account, keys, step, priority) {
      if (opened === undefined && !closed) return Promise.reject(NOT_OPEN())
      return coalescer.transact(account, keys, step, priority)
    },
    now: async () => clock(),
    ...readsOf(() => live().reading, options.path, clock),
    logRefusals: (lines) => refusalLog.add(lines),
    async eraseRefusals(account, dimension, value) {
      await refusalLog.flushed()
      await told(live().writer.ask({ what: 'eraseRefusals', account, dimension, value }))
    },
    keepUsage: (account, revision, change) =>
      told(watched(live().writer.ask({ what: 'usage', account, revision, change }))),
    dropRequestsBefore: (instant) =>
      coalescer.exclusive(async () => {
        const { writer, sessions } = live()
        await told(watched(writer.ask({ what: 'rotate', instant, now: clock() })))
        sessions.refresh()
      }),
    acceptClock: () => coalescer.acceptClock(clock()),
    health,
    async close() {
      closed = true
      await coalescer.close()
      await refusalLog.flushed()
      clearTimeout(probe)
      const closing = opened
      opened = undefined
      if (closing === undefined) return
      closing.check.stop()
      closing.sessions.close()
      closing.reading.close()
      await closing.writer.close().catch(() => {})
      closing.lock.release()
    },
  }
}

const NOT_OPEN = (): SluiceError => new SluiceError('unavailable', 'The store is not open')

/** Batches in flight: those that come while the thread writes go together in its next transaction. */
const LANES = 8
/** Operations that must wait before a second batch is decided while the first is being written; measured, README.md. */
const OVERLAP_FROM = 16

async function openAll(
  options: SqliteOptions,
  host: StoreHost,
  now: Millis,
  onDamage: (error: SluiceError) => void,
  watched: (writing: Promise<void>) => Promise<void>,
): Promise<Opened> {
  const { path, maxCachedCells = 65_536, maxRefusals = 100_000, checkMs = 5_000, maxPages } = options
  const { maxJoined = Number.POSITIVE_INFINITY } = options
  try {
    makeFolder(dirname(path))
  } catch (error) {
    throw unavailable(error, path)
  }
  const lock = lockFile(path)
  let writer: Writer | undefined
  try {
    checkHeader(path)
    const check = await prepareFile(path, now, checkMs, onDamage)
    writer = await startWriter({ path, maxRefusals, maxPages, maxJoined })
    const reading = openReading(path)
    const write = writer
    const sessions = createSessions({
      reading,
      cache: createCache(maxCachedCells),
      write: (rows) => watched(write.commit(rows)),
      alone: true,
    })
    return { host, lock, reading, writer, sessions, check }
  } catch (error) {
    await writer?.close().catch(() => {})
    lock.release()
    throw unavailable(error, path)
  }
}

/** Node's own recursive `mkdirSync` (26.10) never returns where the system answers ENOENT under a folder that exists. */
function makeFolder(path: string): void {
  if (existsSync(path)) return
  if (dirname(path) !== path) makeFolder(dirname(path))
  mkdirSync(path)
}

/** Checks a file that is there, sets it to log ahead, and brings its schema up to date. */
async function prepareFile(
  path: string,
  now: Millis,
  checkMs: number,
  onDamage: (error: SluiceError) => void,
): Promise<{ stop(): void }> {
  const db = new DatabaseSync(path)
  try {
    db.exec(WRITER_SETTINGS)
    checkIdentity(db, path)
    const check = await checkPages(path, checkMs, onDamage)
    const mode = db.prepare('pragma journal_mode = wal').get() as { journal_mode: string }
    if (mode.journal_mode !== 'wal') {
      throw new SluiceError('unavailable', `${path} cannot be written ahead (${mode.journal_mode})`, {
        remedy:
          'Put the file on a local disk: network file systems lack the shared memory that SQLite needs.',
      })
    }
    migrate(db, now)
    return check
  } finally {
    db.close()
  }
}

/** The caller of what is no operation gets the answer, not the way in which a commit failed. */
async function told<T>(writing: Promise<T>): Promise<T> {
  try {
    return await writing
  } catch (error) {
    throw error instanceof CommitError ? error.answer : error
  }
}

/** Lines that may wait to be written; what comes on top is lost, as a crash may lose it. */
const MAX_WAITING_REFUSALS = 10_000

/** One write of refusals at a time, and none that anybody's answer waits for. */
function createRefusalLog(write: (lines: readonly RefusalLine[]) => Promise<void>) {
  let waiting: RefusalLine[] = []
  let writing: Promise<void> | undefined

  async function drain(): Promise<void> {
    while (waiting.length > 0) {
      const lines = waiting
      waiting = []
      await write(lines)
    }
  }
  function flush(): Promise<void> {
    writing ??= drain()
      .catch(() => {
        // The log promises nothing, and health tells of a disk that cannot be written.
        waiting = []
      })
      .finally(() => {
        writing = undefined
        if (waiting.length > 0) flush()
      })
    return writing
  }
  return {
    flushed: async (): Promise<void> => writing,
    async add(lines: readonly RefusalLine[]): Promise<void> {
      waiting.push(...lines.slice(0, Math.max(0, MAX_WAITING_REFUSALS - waiting.length)))
      await flush()
    },
  }
}
