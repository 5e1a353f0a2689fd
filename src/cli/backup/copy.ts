/** A database for one check: made empty, and gone afterwards, whatever happens. */
import { randomBytes } from 'node:crypto'
import { constants } from 'node:os'
import type { Connection } from '../../store/postgres/connection.ts'
import { CliError, EXIT } from '../failure.ts'
import { remark } from '../output.ts'
import { nameOf, type PostgresAddress } from '../stores.ts'
import { unreachable } from '../target.ts'

const SIGNALS = ['SIGINT', 'SIGTERM', 'SIGHUP'] as const

/**
 * Runs `work` on an empty database beside the one that is named. A signal to this process aborts what `work` has started, and
 * ends the process when the database is dropped.
 */
export async function withCopy<T>(
  server: PostgresAddress,
  work: (copy: PostgresAddress, aborted: AbortSignal) => Promise<T>,
): Promise<T> {
  const name = `sluice_check_${randomBytes(8).toString('hex')}`
  const made = create(server, name)
  let dropped: Promise<void> | undefined
  const drop = (): Promise<void> => {
    dropped ??= made.then(
      () => dropOrTell(server, name),
      () => {},
    )
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
    return await work({ kind: 'postgres', url: beside(server, name) }, abort.signal)
  } finally {
    await drop()
    // What was interrupted has failed, and that is nothing to tell.
    if (ending !== undefined) await ending
    for (const signal of SIGNALS) process.off(signal, end)
  }
}

async function create(server: PostgresAddress, name: string): Promise<void> {
  await onServer(server, async (connection) => {
    try {
      // The template that nobody writes to; encoding and locale are those that Sluice's own comparisons go by.
      await connection.exec(`create database ${name} template template0 encoding 'UTF8' locale 'C'`)
    } catch (error) {
      throw new CliError(
        EXIT.unreachable,
        `No database can be made on ${nameOf(server)}: ${error instanceof Error ? error.message : error}`,
        'Name a server with --store where its user may (alter role … createdb).',
      )
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

async function onServer(server: PostgresAddress, work: (connection: Connection) => Promise<void>) {
  const { connect } = await import('../../store/postgres/connection.ts')
  let connection: Connection
  try {
    connection = await connect(server.url, 'sluice backup-check', 0)
  } catch (error) {
    throw unreachable(error, server)
  }
  try {
    await connection.exec('set statement_timeout = 0')
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
