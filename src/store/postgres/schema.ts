import { readdirSync, readFileSync } from 'node:fs'
import { setTimeout as pause } from 'node:timers/promises'
import { SluiceError } from '../../errors.ts'
import type { Millis } from '../../units.ts'
import { type Connection, type Row, statement } from './connection.ts'
import { isLockTimeout } from './failure.ts'

const MIGRATIONS = new URL('./migrations/', import.meta.url)
/** Held while the schema is looked at and brought up to date, so that many nodes may start at once. */
const MIGRATION_LOCK = 5_494_238_001
const OLDEST_SERVER = 150_000

/** How the schema is brought up to date. */
export interface Migrating {
  /** Where the steps are, one file each (`0001_what.sql`), with a slash at its end. Sluice's own, but in tests of an upgrade. */
  readonly folder?: URL
  /** For how long a step that somebody holds up is tried again. */
  readonly patienceMs?: Millis
}

interface Migration {
  readonly version: number
  readonly sql: string
}

function migrations(folder = MIGRATIONS): readonly Migration[] {
  return readdirSync(folder)
    .filter((name) => /^\d{4}_.*\.sql$/.test(name))
    .sort()
    .map((name) => ({
      version: Number(name.slice(0, 4)),
      sql: readFileSync(new URL(name, folder), 'utf8'),
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

/** As on every connection. */
const BOUNDED = "set lock_timeout = '2s'; set statement_timeout = '5s'"
/** `create schema if not exists` asks for the right to create one also where it is there: its owner may have no other. */
const CREATE_SCHEMA = `
  do $$ begin
    if not exists (select from pg_namespace where nspname = 'sluice') then create schema sluice; end if;
  end $$
`

/**
 * Brings the schema up to date, one node at a time, and then does what else a start makes. Other nodes serve meanwhile: a step
 * that waits for a table is taken back before they would refuse anything, and tried again. Throws where the schema is newer
 * than this node. Answers its version.
 */
export async function migrate(
  connection: Connection,
  now: () => Promise<Millis>,
  more: () => Promise<void> = async () => {},
  { folder, patienceMs = PATIENCE_MS }: Migrating = {},
): Promise<number> {
  const all = migrations(folder)
  const newest = all.at(-1)?.version ?? 0
  await connection.exec(
    `set lock_timeout = 0; set statement_timeout = 0; select pg_advisory_lock(${MIGRATION_LOCK})`,
  )
  try {
    await connection.exec(CREATE_SCHEMA)
    await connection.exec('create table if not exists sluice.schema_version (version integer primary key)')
    const version = await versionOf(connection)
    if (version > newest) throw newer(version, newest)
    for (const step of all) {
      if (step.version <= version) continue
      await patiently(connection, patienceMs, () =>
        inTransaction(connection, async () => {
          await connection.exec(step.sql)
          await connection.exec(`insert into sluice.schema_version values (${step.version})`)
        }),
      )
    }
    await settleBase(connection)
    await openGeneration(connection, await now())
    await connection.exec(BOUNDED)
    await more()
    return newest
  } finally {
    await connection.exec(`select pg_advisory_unlock(${MIGRATION_LOCK}); ${BOUNDED}`)
  }
}

/** For whoever only works on what is there: throws where the schema is missing or of another version, and changes nothing. */
export async function requireSchema(connection: Connection, folder?: URL): Promise<number> {
  const newest = migrations(folder).at(-1)?.version ?? 0
  const [[table] = [null]] = await connection.run(
    statement('has_schema', "select to_regclass('sluice.schema_version')::text"),
  )
  if (table === null) throw outdated('the database has no schema of Sluice')
  const version = await versionOf(connection)
  if (version > newest) throw newer(version, newest)
  if (version < newest)
    throw outdated(`the database has schema ${version}, this version of Sluice needs ${newest}`)
  return version
}

const outdated = (says: string): SluiceError =>
  new SluiceError('unavailable', says, {
    remedy:
      'Check the name of the database; then run sluice migrate --store postgres://…, or start the server.',
  })

async function versionOf(connection: Connection): Promise<number> {
  const [[version] = [0]] = await connection.run(
    statement('version', 'select coalesce(max(version), 0) from sluice.schema_version'),
  )
  return Number(version)
}

const newer = (version: number, newest: number): SluiceError =>
  new SluiceError(
    'format_newer',
    `the database has schema ${version}, this version of Sluice knows ${newest}`,
    {
      remedy:
        'Start the newer version of Sluice that migrated it; nodes of this version that run already go on.',
    },
  )

/**
 * How long a change of a table waits for those who use it, first and second time and so on. Whoever comes after it waits behind
 * it, and a node gives up after 2 s. The longer wait is for autovacuum, which makes way for whoever has waited for
 * `deadlock_timeout`, a second as it comes.
 */
const LOCK_WAITS_MS = [500, 1_300] as const
/** In between the nodes work off what has waited. */
const PAUSES_MS = [500, 1_000, 2_000, 4_000] as const
const PATIENCE_MS = 120_000

/** Runs what changes tables, as often as it takes until nobody holds it up; all or nothing of it must stand each time. */
async function patiently(
  connection: Connection,
  patienceMs: Millis,
  work: () => Promise<void>,
): Promise<void> {
  const begun = performance.now()
  for (let tries = 0; ; tries++) {
    await connection.exec(`set lock_timeout = ${LOCK_WAITS_MS[tries % LOCK_WAITS_MS.length]}`)
    try {
      return await work()
    } catch (error) {
      if (!isLockTimeout(error)) throw error
      if (performance.now() - begun >= patienceMs) throw await heldUp(connection, error)
    }
    await pause(PAUSES_MS[Math.min(tries, PAUSES_MS.length - 1)])
  }
}

/** Whose beginning may not be seen is told first: the nodes' own sessions can be. */
const LOCK_HOLDER = statement(
  'lock_holder',
  `select a.pid::bigint, a.usename::text, a.application_name, c.relname::text,
     extract(epoch from clock_timestamp() - a.xact_start)::bigint
   from pg_locks l
     join pg_class c on c.oid = l.relation
     join pg_namespace n on n.oid = c.relnamespace
     join pg_stat_activity a on a.pid = l.pid
   where l.granted and n.nspname = 'sluice' and a.datname = current_database() and a.pid <> pg_backend_pid()
   order by a.xact_start nulls first, a.pid, c.relname limit 1`,
)

async function heldUp(connection: Connection, cause: unknown): Promise<SluiceError> {
  const [holder] = await connection.run(LOCK_HOLDER)
  if (holder === undefined)
    return new SluiceError('unavailable', 'the schema could not be changed: its tables are in use', {
      remedy: 'Nothing of this step was changed; try again.',
      cause,
    })
  const [pid, user, program, table, seconds] = holder
  const who = `${program === '' ? 'a session' : program} (process ${pid}${user === null ? '' : `, user ${user}`})`
  const long = seconds === null ? '' : ` for ${seconds} s`
  return new SluiceError(
    'unavailable',
    `the schema could not be changed: ${who} has held the table ${table}${long}`,
    {
      remedy: `Nothing of this step was changed. Try again when it has ended, or end it: select pg_terminate_backend(${pid}).`,
      cause,
    },
  )
}

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
