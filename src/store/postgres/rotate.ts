import type { Millis } from '../../units.ts'
import { type Connection, type Row, statement } from './connection.ts'
import { isLockTimeout } from './failure.ts'
import { addGeneration, inTransaction } from './schema.ts'

const ROTATION_LOCK = 5_494_238_002
const GENERATIONS = statement(
  'all_generations',
  'select id, opened_at, closed_at from generation order by id',
)
const CLOSE = statement('close_generation', 'update generation set closed_at = $2::bigint where id = $1')

/** A change of a table waits no longer behind a backup: who comes after it would wait as well, and a node gives up after 2 s. */
const SOON = "set local lock_timeout = '500ms'"

/**
 * Drops generations whose requests had all closed before an instant, and begins a new one when the present one is as old as
 * that. Open requests are not in generations, so that none is lost. One node at a time; another that comes finds it done.
 */
export async function rotate(db: Connection, instant: Millis, now: Millis): Promise<void> {
  await inTransaction(db, async () => {
    await db.exec(`select pg_advisory_xact_lock(${ROTATION_LOCK}); ${SOON}`)
    const all = await db.run(GENERATIONS)
    const [current, openedAt] = all.at(-1) as Row
    if ((openedAt as Millis) < instant) {
      await db.run(CLOSE, [current as number, now])
      await addGeneration(db, (current as number) + 1, now)
    }
    for (const [id, , closedAt] of all) {
      if (closedAt === null || (closedAt as Millis) >= instant) continue
      await db.exec(`drop table request_${id}; delete from generation where id = ${id}`)
    }
  })
}

/** Months that entries are recorded in have partitions of their own, made ahead; what finds none goes to `journal_other`. */
const MONTHS_AHEAD = 2

const HAS_TABLE = statement(
  'has_table',
  `select c.relname from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = 'sluice' and c.relname = $1`,
)

export async function openMonths(db: Connection, now: Millis): Promise<void> {
  const today = new Date(now)
  for (let ahead = 0; ahead <= MONTHS_AHEAD; ahead++) {
    const from = new Date(Date.UTC(today.getUTCFullYear(), today.getUTCMonth() + ahead))
    const to = Date.UTC(today.getUTCFullYear(), today.getUTCMonth() + ahead + 1)
    const name = `journal_${from.toISOString().slice(0, 7).replace('-', '_')}`
    if ((await db.run(HAS_TABLE, [name])).length > 0) continue
    const within = `recorded_at >= ${from.getTime()} and recorded_at < ${to}`
    const made = inTransaction(db, async () => {
      await db.exec(`select pg_advisory_xact_lock(${ROTATION_LOCK}); ${SOON}`)
      if ((await db.run(HAS_TABLE, [name])).length > 0) return
      // A clock that jumped, or nodes that nobody tidied for months: what went to the rest moves to its month.
      await db.exec(`
        create table ${name} (like journal including all);
        with moved as (delete from journal_other where ${within} returning *) insert into ${name} select * from moved;
        alter table journal attach partition ${name} for values from (${from.getTime()}) to (${to});
      `)
    })
    try {
      await made
    } catch (error) {
      // Behind a backup, entries go to the rest meanwhile: that is no reason not to start.
      if (!isLockTimeout(error)) throw error
      return
    }
  }
}
