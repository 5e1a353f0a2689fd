/**
 * A database for one check: made empty, and gone afterwards, whatever happens. A process that is killed cannot see to that, so the
 * next check does: while one is at work it holds a lock that is told from its database's name, and takes it before it makes that.
 */
import { randomBytes } from 'node:crypto'
import { constants } from 'node:os'
import type { Connection } from '../../store/postgres/connection.ts'
import { CliError, EXIT } from '../failure.ts'
import { remark } from '../output.ts'
import { nameOf, type PostgresAddress } from '../stores.ts'
import { unreachable } from '../target.ts'

const PREFIX = 'sluice_check_'
/**
 * Databases of checks by this user whose lock nobody holds and that nobody is connected to. Locks are told apart by the database that
 * they were taken in, and listed for all of them.
 */
const ABANDONED = `
  select datname from pg_database d
    where datname ~ '^${PREFIX}[0-9a-f]{16}$' and datdba = (select oid from pg_roles where rolname = current_user)
      and not exists (select from pg_stat_activity a where a.datid = d.oid)
      and not exists (select from pg_locks where locktype = 'advisory' and objsubid = 1
        and ((classid::bigint << 32) | objid::bigint) = ('x' || right(datname, 16))::bit(64)::bigint)`
/** The connection that holds the lock says nothing for as long as the check takes. */
const PATIENT = `
  set statement_timeout = 0;
  select set_config('idle_session_timeout', '0', false) where current_setting('idle_session_timeout', true) is not null`
const lockOf = (name: string): string =>
  `select pg_advisory_lock(('x' || '${name.slice(PREFIX.length)}')::bit(64)::bigint)`

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/**
 * Runs `work` on an empty database beside the one that is named. A signal to this process aborts what `work` has started, and
 * ends the process when the database is dropped.
 */
export async function withCopy<T>(
  server: PostgresAddress,
  work: (copy: PostgresAddress, aborted: AbortSignal) => Promise<T>,
): Promise<T> {
  const name = `${PREFIX}${randomBytes(8).toString('hex')}`
  const locked = await connected(server)
  const made = create(locked, server, name)
  let dropped: Promise<void> | undefined
  const drop = (): Promise<void> => {
    dropped ??= made
      .then(
        () => dropOrTell(server, name),
        () => {},
      )
      .finally(() => locked.end().catch(() => {}))
    return dropped
  }
  const abort = new AbortController()
  let ending: Promise<never> | undefined
  const end = (signal: (typeof SIGNALS)[number]): void => {
    abort.abort()
    ending ??= drop().then(() => process.exit(128 + constants.signals[signal]))
  }
  for (const signal of SIGNALS) process.once(signal, end)
  try {
    await made
    await dropAbandoned(server)
    return await work({ kind: 'postgres', url: beside(server, name) }, abort.signal)
  } finally {
    await drop()
    // What was interrupted has failed, and that is nothing to tell.
    if (ending !== undefined) await ending
    for (const signal of SIGNALS) process.off(signal, end)
  }
}

async function create(locked: Connection, server: PostgresAddress, name: string): Promise<void> {
  try {
    await locked.exec(lockOf(name))
    // The template that nobody writes to; encoding and locale are those that Sluice's own comparisons go by.
    await locked.exec(`create database ${name} template template0 encoding 'UTF8' locale 'C'`)
  } catch (error) {
    throw new CliError(
      EXIT.unreachable,
      `No database can be made on ${nameOf(server)}: ${error instanceof Error ? error.message : error}`,
      'Name a server with --store where its user may (alter role … createdb).',
    )
  }
}

/** What stands in the way of it is told, and does not stop the check. */
async function dropAbandoned(server: PostgresAddress): Promise<void> {
  const { statement } = await import('../../store/postgres/connection.ts')
  await onServer(server, async (connection) => {
    for (const [name] of await connection.run(statement('abandoned', ABANDONED))) {
      try {
        // Not by force: it fails where somebody has connected meanwhile.
        await connection.exec(`drop database if exists ${name}`)
        remark(`Dropped ${name}, which a check that was killed had left.`)
      } catch (error) {
        remark(
          `The database ${name} of an earlier check is left: ${error instanceof Error ? error.message : error}`,
        )
      }
    }
  })
}

async function dropOrTell(server: PostgresAddress, name: string): Promise<void> {
  try {
    await onServer(server, async (connection) => {
      await connection.exec(`drop database if exists ${name} with (force)`)
    })
  } catch (error) {
    const why = error instanceof Error ? error.message : error
    remark(`The database ${name} is left on ${nameOf(server)} (${why}): drop it by hand.`)
  }
}

async function connected(server: PostgresAddress): Promise<Connection> {
  const { connect } = await import('../../store/postgres/connection.ts')
  try {
    const connection = await connect(server.url, 'sluice backup-check', 0)
    await connection.exec(PATIENT)
    return connection
  } catch (error) {
    throw unreachable(error, server)
  }
}

async function onServer(server: PostgresAddress, work: (connection: Connection) => Promise<void>) {
  const connection = await connected(server)
  try {
    await work(connection)
  } finally {
    await connection.end().catch(() => {})
  }
}

/** The same server, another database. */
function beside({ url: text }: PostgresAddress, name: string): string {
  const url = new URL(text)
  url.pathname = `/${name}`
  // For libpq these would come before the path.
  for (const other of ['dbname', 'database']) if (url.searchParams.has(other)) url.searchParams.delete(other)
  return url.href
}
