import { readdirSync, readFileSync } from 'node:fs'
import type { DatabaseSync } from 'node:sqlite'
import { SluiceError } from '../../errors.ts'
import type { Millis } from '../../units.ts'

/** `Slce`: marks a file as Sluice's own. */
const APPLICATION_ID = 0x536c6365
const MIGRATIONS = new URL('./migrations/', import.meta.url)

/** Slots of one account's cells in the row ids of table `cell`: 2^31 accounts of 2^22 cells fit a safe integer. */
export const SLOTS = 2 ** 22

/** Settings of every connection. A larger page costs up to a quarter of the throughput, see README.md. */
export const SETTINGS = `
  pragma busy_timeout = 2000;
  pragma foreign_keys = off;
  pragma cache_size = -65536;
  pragma trusted_schema = off;
`

/**
 * Settings of connections that write. None moves pages of the log by itself: `checkpoints.ts` says when. Erased texts are
 * overwritten where they stood, at no measurable cost.
 */
export const WRITER_SETTINGS = `
  ${SETTINGS}
  pragma wal_autocheckpoint = 0;
  pragma secure_delete = fast;
`

interface Migration {
  readonly version: number
  readonly name: string
}

function migrations(): readonly Migration[] {
  return readdirSync(MIGRATIONS)
    .filter((name) => /^\d{4}_.*\.sql$/.test(name))
    .sort()
    .map((name) => ({ version: Number(name.slice(0, 4)), name }))
}

const pragma = (db: DatabaseSync, name: string): unknown =>
  Object.values(db.prepare(`pragma ${name}`).get() ?? {})[0]

/** Throws where the file is not Sluice's, or was written by a newer version. */
export function checkIdentity(db: DatabaseSync, path: string): void {
  const tables = db.prepare('select count(*) as n from sqlite_schema').get() as { n: number }
  if (tables.n === 0) return
  if (pragma(db, 'application_id') !== APPLICATION_ID) {
    throw new SluiceError('unavailable', `${path} is an SQLite file of another program`, {
      remedy: 'Name a path of its own for Sluice.',
    })
  }
  const version = pragma(db, 'user_version') as number
  const newest = migrations().at(-1)?.version ?? 0
  if (version > newest) {
    throw new SluiceError(
      'format_newer',
      `${path} has schema ${version}, this version of Sluice knows ${newest}`,
      {
        remedy: 'Start the newer version of Sluice that wrote it.',
      },
    )
  }
}

/** Brings a file up to date, each step in a transaction of its own, and sees to it that there is a generation. */
export function migrate(db: DatabaseSync, now: Millis): void {
  const version = pragma(db, 'user_version') as number
  for (const step of migrations()) {
    if (step.version <= version) continue
    const sql = readFileSync(new URL(step.name, MIGRATIONS), 'utf8')
    inTransaction(db, () => {
      db.exec(sql)
      db.exec(`pragma application_id = ${APPLICATION_ID}; pragma user_version = ${step.version}`)
    })
  }
  if (generations(db).length === 0) inTransaction(db, () => openGeneration(db, 1, now))
}

export interface Generation {
  readonly id: number
  readonly openedAt: Millis
  readonly closedAt: Millis | null
}

/** Oldest first; the last is the one that new requests go to. */
export function generations(db: DatabaseSync): readonly Generation[] {
  return db
    .prepare('select id, opened_at as openedAt, closed_at as closedAt from generation order by id')
    .all() as unknown as Generation[]
}

/**
 * Makes the table of a generation. Requests are appended; the unique index leads with the request's id, which finds the
 * accounts that know it, and costs a page a request only where ids are random. Open ones have an index of their own,
 * which stays as small as they are few.
 */
export function openGeneration(db: DatabaseSync, id: number, now: Millis): void {
  db.exec(`
    create table request_${id} (
      id integer primary key,
      account integer not null,
      request_id text not null,
      expires_at integer,
      sum integer not null,
      body text not null
    ) strict;
    create unique index request_${id}_id on request_${id} (request_id, account);
    create index request_${id}_open on request_${id} (account, expires_at) where expires_at is not null;
  `)
  db.prepare('insert into generation (id, opened_at) values (?, ?)').run(id, now)
}

export function inTransaction(db: DatabaseSync, work: () => void): void {
  db.exec('begin immediate')
  try {
    work()
    db.exec('commit')
  } catch (error) {
    // On a full disk SQLite has rolled back by itself.
    if (db.isTransaction) db.exec('rollback')
    throw error
  }
}
