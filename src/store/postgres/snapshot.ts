/** Accounts at one moment: transactions that only read, each of them short. */
import type { AccountCell, GrantCell, RequestCell, SubjectCell } from '../../kernel/cells.ts'
import type { StoredEntry } from '../../ledger/entries.ts'
import type { AccountSnapshot, Moment, SnapshotOf } from '../../store.ts'
import { withinMoment } from '../coalesce.ts'
import { type Connection, type Row, statement } from './connection.ts'
import * as reader from './reader.ts'
import { ENTRY, entryOf, parseCell, parseRequest } from './rows.ts'

/** By the place of each account in what was asked; one look into the index for each, as everywhere. */
const OF_ACCOUNTS = 'unnest($1::text[]) with ordinality as asked (name, n)'
const ACCOUNTS = statement(
  'snapshot_accounts',
  `select n, body from ${OF_ACCOUNTS}, lateral (select body from account where account.name = asked.name) found`,
)
const CELLS = statement(
  'snapshot_cells',
  `select n, key, body from ${OF_ACCOUNTS}, lateral (
     select key, body from cell where account = name and key >= 'grant:' and key < 'subject;' order by key limit $2
   ) found`,
)
const REQUESTS = statement(
  'snapshot_requests',
  `select n, body from ${OF_ACCOUNTS}, lateral (
     (select body from hold where account = name limit $2)
     union all (select body from request where account = name limit $2)
   ) found`,
)
const ENTRIES = statement(
  'snapshot_entries',
  `select n, ${ENTRY} from unnest($1::text[], $2::bigint[]) with ordinality as asked (name, since, n), lateral (
     select ${ENTRY} from journal where account = name and seq > since order by seq limit $3
   ) found`,
)
/**
 * A statement may take 2 s here, and a pause between two as long, then the server ends it: with `SNAPSHOT_MS` for all of them
 * that makes 9 s at the very most, whatever becomes of this process.
 */
const BEGIN = `begin isolation level repeatable read read only;
  set local statement_timeout = '2s'; set local idle_in_transaction_session_timeout = '2s'`

/** All that is asked for goes out together: one round trip. */
export async function snapshots(
  db: Connection,
  asked: readonly SnapshotOf[],
  limit: number,
): Promise<readonly AccountSnapshot[]> {
  const names = asked.map(({ account }) => account)
  const most = limit + 1
  const [, accounts, cells, requests, entries] = await Promise.all([
    db.exec(BEGIN),
    db.run(ACCOUNTS, [names]),
    db.run(CELLS, [names, most]),
    db.run(REQUESTS, [names, most]),
    db.run(ENTRIES, [names, asked.map(({ afterSeq }) => afterSeq), most]),
    db.exec('commit'),
  ])
  const found = asked.map(() => ({
    account: null as AccountCell | null,
    subjects: [] as SubjectCell[],
    grants: [] as GrantCell[],
    requests: [] as RequestCell[],
    entries: [] as StoredEntry[],
  }))
  const of = ([n]: Row) => found[Number(n) - 1] as (typeof found)[number]
  for (const row of accounts) of(row).account = parseCell(row[1]) as AccountCell
  for (const row of cells) {
    const cell = parseCell(row[2])
    if ((row[1] as string).startsWith('subject:')) of(row).subjects.push(cell as SubjectCell)
    else if ((row[1] as string).startsWith('grant:')) of(row).grants.push(cell as GrantCell)
  }
  for (const row of requests) of(row).requests.push(parseRequest(row[1]))
  for (const row of entries) of(row).entries.push(entryOf(row.slice(1)))
  return found.map((one) => ({
    ...one,
    whole:
      one.subjects.length + one.grants.length <= limit &&
      one.requests.length <= limit &&
      one.entries.length <= limit,
  }))
}

/** What `read` made of the moment, or what it threw by itself: that says nothing of the database's health. */
export async function snapshot<T>(
  db: Connection,
  account: string,
  read: (moment: Moment) => Promise<T>,
): Promise<{ readonly seen: T } | { readonly thrown: unknown }> {
  const within = withinMoment(account)
  let failure: unknown
  const inTime = <R>(work: () => Promise<R>): Promise<R> =>
    within(() =>
      work().catch((error) => {
        failure = error
        throw error
      }),
    )
  await db.exec(BEGIN)
  try {
    const own = (await reader.own(db, account)) as AccountCell | null
    const moment: Moment = {
      account: own,
      entries: (query) => inTime(() => reader.entries(db, account, query)),
      subjects: (page) => inTime(() => reader.cells(db, account, 'subject:', page)),
      holds: (after, limit) => inTime(() => reader.holdPage(db, account, after?.id ?? '', limit)),
      policy: (version) => inTime(() => reader.policy(db, version)),
    }
    return { seen: await read(moment) }
  } catch (error) {
    if (failure !== undefined) throw error
    return { thrown: error }
  } finally {
    await db.exec('commit')
  }
}
