/** Letting old entries go: whole months, while nodes write. */
import { setTimeout as pause } from 'node:timers/promises'
import { SluiceError } from '../../errors.ts'
import type { Dropped, LastBefore, Page } from '../../store.ts'
import type { Millis } from '../../units.ts'
import { SYSTEM_ACCOUNT } from '../coalesce.ts'
import { type Connection, statement } from './connection.ts'
import { isLockTimeout } from './failure.ts'
import { inTransaction } from './schema.ts'

/**
 * From account to account by the index, and in each to its last entry: months that are younger are not looked at, and of the
 * others a few pages for each account.
 */
const LAST_BEFORE = statement(
  'last_before',
  `with recursive found (name, n) as (
     (select account, 1 from journal
        where account > $1 and recorded_at < $2 and account <> '${SYSTEM_ACCOUNT}' order by account limit 1)
     union all
     select (select account from journal
        where account > name and recorded_at < $2 and account <> '${SYSTEM_ACCOUNT}' order by account limit 1), n + 1
       from found where name is not null and n < $3
   )
   select name, (select seq from journal where account = name and recorded_at < $2 order by seq desc limit 1)
     from found where name is not null order by name`,
)
export async function lastBefore(
  db: Connection,
  instant: Millis,
  { after = '', limit }: Page,
): Promise<LastBefore[]> {
  const found = await db.run(LAST_BEFORE, [after, instant, limit])
  return found.map(([account, seq]) => ({ account: account as string, seq: seq as number }))
}

/** Tables of months, attached or no longer: a name says which month it is. */
const MONTHS = statement(
  'months',
  `select c.relname, c.relispartition::text from pg_class c join pg_namespace n on n.oid = c.relnamespace
     where n.nspname = 'sluice' and c.relkind = 'r' and c.relname ~ '^journal_[0-9]{4}_[0-9]{2}$' order by c.relname`,
)
const MONTH = /^journal_(\d{4})_(\d{2})$/
/** When the month ends; the name comes from the query above. */
function endOf(name: string): Millis {
  const [, year, month] = MONTH.exec(name) ?? []
  return Date.UTC(Number(year), Number(month))
}

/** Waiting for a table, every batch that comes waits behind: so for a moment, and again later. */
const LOCK_MS = 200
const PAUSE_MS = 300
/** Longer than the longest read of an audit, which holds the table as well. */
const TRIES = 60
/** Of entries that found no month of their own. */
const SLICE = 5_000

/**
 * Takes months out of the journal and drops them, oldest first, each in two steps: what was interrupted in between is found by
 * its name, and done to the end. Entries of `@system` move to where those stand that have no month.
 */
export async function dropBefore(db: Connection, instant: Millis): Promise<Dropped> {
  const dropped: string[] = []
  for (const [table, attached] of await db.run(MONTHS)) {
    const name = table as string
    if (endOf(name) > instant) continue
    if (attached === 'true') await patiently(() => detach(db, name))
    await db.exec(`drop table if exists ${name}`)
    dropped.push(name.slice('journal_'.length).replace('_', '-'))
  }
  for (;;) {
    const gone = await db.run(DROP_REST, [instant, SLICE])
    if (gone.length < SLICE) return { months: dropped }
  }
}

const DROP_REST = statement(
  'drop_rest',
  `delete from journal_other where ctid = any(array(
     select ctid from journal_other where recorded_at < $1 and account <> '${SYSTEM_ACCOUNT}' limit $2
   )) returning 1`,
)

const detach = (db: Connection, name: string): Promise<void> =>
  inTransaction(db, async () => {
    await db.exec(`
      set local lock_timeout = '${LOCK_MS}ms';
      alter table journal detach partition ${name};
      insert into journal select * from ${name} where account = '${SYSTEM_ACCOUNT}';
    `)
  })

async function patiently(work: () => Promise<void>): Promise<void> {
  for (let tries = 1; ; tries++) {
    try {
      return await work()
    } catch (error) {
      if (!isLockTimeout(error)) throw error
      if (tries === TRIES)
        throw new SluiceError('unavailable', 'somebody has held the journal for longer than half a minute', {
          remedy:
            'End what reads it for long, such as a dump or a query by hand, and run this again: it goes on where it was.',
          cause: error,
        })
      await pause(PAUSE_MS)
    }
  }
}
