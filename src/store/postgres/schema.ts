import { readdirSync, readFileSync } from 'node:fs'
import { SluiceError } from '../../errors.ts'
import type { Millis } from '../../units.ts'
import { type Connection, type Row, statement } from './connection.ts'

const MIGRATIONS = new URL('./migrations/', import.meta.url)
/** Held while the schema is looked at and brought up to date, so that many nodes may start at once. */
const MIGRATION_LOCK = 5_494_238_001
const OLDEST_SERVER = 150_000

interface Migration {
  readonly version: number
  readonly sql: string
}

function migrations(): readonly Migration[] {
  return readdirSync(MIGRATIONS)
    .filter((name) => /^\d{4}_.*\.sql$/.test(name))
    .sort()
    .map((name) => ({
      version: Number(name.slice(0, 4)),
      sql: readFileSync(new URL(name, MIGRATIONS), 'utf8'),
    }))
}

/** What a server must be set to so that an answer survives a loss of power, and how to set it. */
const MUST: readonly (readonly [setting: string, value: string])[] = [
  ['fsync', 'on'],
  ['full_page_writes', 'on'],
]

const SETTINGS = statement(
  'settings',
  `select current_setting('server_version_num')::int8, current_setting('fsync'), current_setting('full_page_writes'),
     current_setting('synchronous_commit'), pg_is_in_recovery()::text`,
)

/** Throws where the server cannot keep the promises, and says what to set. */
export async function checkServer(connection: Connection): Promise<void> {
  const [[version, ...settings] = []] = (await connection.run(SETTINGS)) as [Row?]
  if (Number(version) < OLDEST_SERVER)
    throw new SluiceError('unavailable', `PostgreSQL ${version} is too old`, {
      remedy: 'Run PostgreSQL 15 or newer.',
    })
  MUST.forEach(([setting, value], place) => {
    if (settings[place] !== value)
      throw new SluiceError('unavailable', `PostgreSQL runs with ${setting} = ${settings[place]}`, {
        remedy: `Set ${setting} = ${value}: without it a crash of the machine loses or damages what was answered.`,
      })
  })
  if (settings[2] === 'off')
    throw new SluiceError('unavailable', 'PostgreSQL runs with synchronous_commit = off', {
      remedy: 'Set synchronous_commit = on for the user of Sluice: else a crash loses what was answered.',
    })
  if (settings[3] === 'true')
    throw new SluiceError('unavailable', 'this PostgreSQL is a standby and can only be read', {
      remedy: 'Connect to the primary.',
    })
}

/** Brings the schema up to date, one node at a time. Throws where it is newer than this node. Answers its version. */
export async function migrate(connection: Connection, now: () => Promise<Millis>): Promise<number> {
  const all = migrations()
  const newest = all.at(-1)?.version ?? 0
  await connection.exec(
    `set lock_timeout = 0; set statement_timeout = 0; select pg_advisory_lock(${MIGRATION_LOCK})`,
  )
  try {
    await connection.exec('create schema if not exists sluice')
    await connection.exec('create table if not exists sluice.schema_version (version integer primary key)')
    const [[version] = [0]] = await connection.run(
      statement('version', 'select coalesce(max(version), 0) from sluice.schema_version'),
    )
    if (Number(version) > newest) throw newer(Number(version), newest)
    for (const step of all) {
      if (step.version <= Number(version)) continue
      await inTransaction(connection, async () => {
        await connection.exec(step.sql)
        await connection.exec(`insert into sluice.schema_version values (${step.version})`)
      })
    }
    await settleBase(connection)
    await openGeneration(connection, await now())
    return newest
  } finally {
    await connection.exec(
      `select pg_advisory_unlock(${MIGRATION_LOCK}); set lock_timeout = '2s'; set statement_timeout = '5s'`,
    )
  }
}

const newer = (version: number, newest: number): SluiceError =>
  new SluiceError(
    'format_newer',
    `the database has schema ${version}, this version of Sluice knows ${newest}`,
    {
      remedy: 'Start the newer version of Sluice that migrated it.',
    },
  )

export async function inTransaction(connection: Connection, work: () => Promise<void>): Promise<void> {
  await connection.exec('begin')
  try {
    await work()
  } catch (error) {
    await connection.exec('rollback').catch(() => {})
    throw error
  }
  if ((await connection.exec('commit')) !== 'COMMIT') throw new Error('the transaction was rolled back')
}

/** A server that a dump was restored into counts its transactions from the start: positions go on behind the last. */
async function settleBase(connection: Connection): Promise<void> {
  await connection.exec(`
    update position_base set base = top.position - pg_current_xact_id()::text::bigint + 1
      from (select max(position) as position from journal) top
      where top.position >= base + pg_current_xact_id()::text::bigint
  `)
}

/** There is always a generation for requests that close. */
async function openGeneration(connection: Connection, now: Millis): Promise<void> {
  const [[count] = [0]] = await connection.run(statement('generations', 'select count(*) from generation'))
  if (Number(count) === 0) await inTransaction(connection, () => addGeneration(connection, 1, now))
}

export async function addGeneration(connection: Connection, id: number, now: Millis): Promise<void> {
  await connection.exec(`
    create table request_${id} partition of request for values in (${id});
    insert into generation (id, opened_at) values (${id}, ${now});
  `)
}
