/** The contract's readers: short statements that see what is committed, on connections of their own. */
import type { AccountCell, Cell, Key, PolicyCell, RequestCell } from '../../kernel/cells.ts'
import type { EntryKind, StoredEntry } from '../../ledger/entries.ts'
import type { EntryQuery, JournalRow, KeyedCell, Page, RefusalLine } from '../../store.ts'
import type { Millis } from '../../units.ts'
import { SYSTEM_ACCOUNT } from '../coalesce.ts'
import { type Connection, type Row, statement, type Value } from './connection.ts'
import { ENTRY, entryOf, KINDS, OPEN_HOLDS, parseCell, parseRequest } from './rows.ts'

const NOW = statement('now', 'select (extract(epoch from clock_timestamp()) * 1000)::bigint')
const DUE = statement(
  'due',
  `select name, due_at, (body::json->>'dueAt')::bigint from account where due_at <= $1 order by due_at, name limit $2`,
)
/** One that another node has locked is passed over: that node is at work on it. */
const RAISE = statement(
  'raise',
  `update account set due_at = (body::json->>'dueAt')::bigint where name in
     (select name from account where name = any($1::text[]) and due_at <= $2 order by name for update skip locked)`,
)
const ACCOUNT_PAGE = statement(
  'account_page',
  `select body from account where name > $1 and name <> '${SYSTEM_ACCOUNT}' order by name limit $2`,
)
const CELL_PAGE = statement(
  'cell_page',
  'select key, body from cell where account = $1 and key > $2 and key >= $3 and key < $4 order by key limit $5',
)
const REQUEST_PAGE = statement(
  'request_page',
  `select 'request:' || request_id, body from (
     (select request_id, body from hold
       where account = $1 and request_id > $2 and request_id >= $3 and request_id < $4 order by request_id limit $5)
     union all
     (select request_id, body from request
       where account = $1 and request_id > $2 and request_id >= $3 and request_id < $4 order by request_id limit $5)
   ) found order by request_id limit $5`,
)
const OWN = statement('own', 'select body from account where name = $1')
/** By id alone there is no index: the account leads them all, so that this looks through the ids of all accounts. */
const HOLDERS = statement(
  'holders',
  `select distinct account from (
     select account from hold where request_id = $1 union all select account from request where request_id = $1
   ) found order by account limit $2`,
)
const ENTRY_PAGES = ['asc', 'desc'].map((order) =>
  statement(
    `entry_page_${order}`,
    `select ${ENTRY} from journal where account = $1 and seq between $2 and $3 and kind = any($4::smallint[])
       order by seq ${order} limit $5`,
  ),
)
/**
 * Up to where every transaction of this database has ended: the number that comes next when the statement begins, or the least
 * that is still at work a moment later. `pg_snapshot_xmin` alone would wait for the other databases of the server too; it is
 * what is left where the activity of another user may not be seen. An activity tells the lower 32 bits of a number.
 */
const HORIZON = statement(
  'horizon',
  `with seen as (
     select pg_snapshot_xmax(s)::text::bigint as top, pg_snapshot_xmin(s)::text::bigint as bottom from pg_current_snapshot() s
   ), activity as (
     select ((top & 4294967295) - backend_xid::text::bigint) & 4294967295 as age, query = '<insufficient privilege>' as hidden
     from seen, pg_stat_activity
     where datname = current_database() and (backend_type = 'client backend' or backend_type is null)
   )
   select set_config('sluice.horizon', case
     when exists (select from activity where hidden) then bottom
     else top - coalesce((select max(age) from activity where age < 2147483648), 0)
   end::text, false) from seen`,
)
/** What comes later stands behind the horizon, so that nobody who follows the journal misses a line. */
const JOURNAL = statement(
  'journal',
  `select account, position, ${ENTRY} from journal
     where (position, account, seq) > ($1, $2, $3) and position >= $1
       and position < (select base + current_setting('sluice.horizon')::bigint from position_base)
       and kind = any($4::smallint[])
     order by position, account, seq limit $5`,
)
const COUNT_HOLDS = statement('count_holds', 'select count(*) from hold')
const ADD_REFUSALS = statement(
  'add_refusals',
  `insert into refusal (account, request_id, subject, reason, at, count, answer)
     select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bigint[], $6::bigint[], $7::text[])`,
)
const TRIM_REFUSALS = statement(
  'trim_refusals',
  'delete from refusal where id <= (select max(id) from refusal) - $1::bigint',
)
const REFUSALS = statement(
  'refusals',
  `select account, request_id, subject, reason, at, count, answer from refusal
     where account = $1 and ($2::text is null or request_id = $2) order by id desc limit $3`,
)
const ERASE_REFUSALS = statement(
  'erase_refusals',
  'delete from refusal where account = $1 and subject::json->>$2 = $3',
)

const LAST = '\u{10ffff}'
const REQUEST = 'request:'
const kindsOf = (kinds: readonly EntryKind[] | undefined): readonly number[] =>
  kinds === undefined ? KINDS.map((_, number) => number) : kinds.map((kind) => KINDS.indexOf(kind))

export const now = async (db: Connection): Promise<Millis> => (await db.run(NOW))[0]?.[0] as Millis

/**
 * Accounts whose `due_at` has come. The column may lie before the end of the first hold, where that was closed or extended:
 * of those it is raised to what the cell says, here and by nobody else.
 */
export async function due(db: Connection, at: Millis, limit: number) {
  for (;;) {
    const found = await db.run(DUE, [at, limit])
    const early = found.filter(([, , dueAt]) => dueAt === null || (dueAt as Millis) > at)
    if (early.length > 0) await db.run(RAISE, [early.map(([name]) => name as string), at])
    // Where all of a page was early, those that are due stand behind it.
    if (early.length === found.length && found.length === limit) continue
    return found
      .filter((row) => !early.includes(row))
      .map(([account, dueAt]) => ({ account: account as string, dueAt: dueAt as Millis }))
  }
}

export async function accounts(db: Connection, { after = '', limit }: Page): Promise<AccountCell[]> {
  return (await db.run(ACCOUNT_PAGE, [after, limit])).map(([body]) => parseCell(body) as AccountCell)
}

export async function own(db: Connection, account: string): Promise<Cell | null> {
  const [row] = await db.run(OWN, [account])
  return row === undefined ? null : parseCell(row[0])
}

const POLICY = statement('policy', `select body from cell where account = '${SYSTEM_ACCOUNT}' and key = $1`)
export async function policy(db: Connection, version: number): Promise<PolicyCell | null> {
  const [row] = await db.run(POLICY, [`policy:${version}`])
  return row === undefined ? null : (parseCell(row[0]) as PolicyCell)
}

export async function cells(
  db: Connection,
  account: string,
  prefix: string,
  { after = '', limit }: Page,
): Promise<KeyedCell[]> {
  const found: KeyedCell[] = []
  if ('account'.startsWith(prefix) && after < 'account') {
    const cell = await own(db, account)
    if (cell !== null) found.push({ key: 'account', cell })
  }
  const wide = REQUEST.startsWith(prefix)
  const asked = [db.run(CELL_PAGE, [account, after, prefix, `${prefix}${LAST}`, limit])]
  if ((wide || prefix.startsWith(REQUEST)) && (after < REQUEST || after.startsWith(REQUEST))) {
    const from = wide ? '' : prefix.slice(REQUEST.length)
    const afterId = after > REQUEST ? after.slice(REQUEST.length) : ''
    asked.push(db.run(REQUEST_PAGE, [account, afterId, from, `${from}${LAST}`, limit]))
  }
  for (const rows of await Promise.all(asked))
    for (const [key, body] of rows) found.push({ key: key as Key, cell: parseCell(body) })
  return found.sort((a, b) => Buffer.compare(Buffer.from(a.key), Buffer.from(b.key))).slice(0, limit)
}

export async function holds(db: Connection, account: string, limit: number): Promise<RequestCell[]> {
  return (await db.run(OPEN_HOLDS, [account, limit])).map(([body]) => parseRequest(body))
}

const HOLD_PAGE = statement(
  'hold_page',
  'select body from hold where account = $1 and request_id > $2 order by request_id limit $3',
)
/** In order of id, as the index has them: in order of end all would be sorted for each page. */
export async function holdPage(
  db: Connection,
  account: string,
  afterId: string,
  limit: number,
): Promise<RequestCell[]> {
  return (await db.run(HOLD_PAGE, [account, afterId, limit])).map(([body]) => parseRequest(body))
}

export async function accountsOfRequest(db: Connection, requestId: string, limit: number): Promise<string[]> {
  return (await db.run(HOLDERS, [requestId, limit])).map(([account]) => account as string)
}

export async function entries(db: Connection, account: string, query: EntryQuery): Promise<StoredEntry[]> {
  const { from = 1, to = Number.MAX_SAFE_INTEGER, kinds, newestFirst = false, limit } = query
  const page = ENTRY_PAGES[newestFirst ? 1 : 0] as (typeof ENTRY_PAGES)[number]
  return (await db.run(page, [account, from, to, kindsOf(kinds), limit])).map(entryOf)
}

/** A position is `<transaction> <seq> <account>`. */
export async function journal(
  db: Connection,
  after: string | undefined,
  limit: number,
  kinds?: readonly EntryKind[],
): Promise<JournalRow[]> {
  const [position = '0', seq = '0', account = ''] = after?.split(' ') ?? []
  const values: Value[] = [Number(position), account, Number(seq), kindsOf(kinds), limit]
  // In this order, and each with a snapshot of its own: what ended before the horizon was taken is seen after it.
  const [, found] = await Promise.all([db.run(HORIZON), db.run(JOURNAL, values)])
  return found.map(([name, at, ...row]) => {
    const entry = entryOf(row)
    return { account: name as string, position: `${at} ${entry.seq} ${name}`, entry }
  })
}

export async function countHolds(db: Connection): Promise<number> {
  return (await db.run(COUNT_HOLDS))[0]?.[0] as number
}

export async function logRefusals(
  db: Connection,
  lines: readonly RefusalLine[],
  most: number,
): Promise<void> {
  if (lines.length === 0) return
  const columns = [
    lines.map(({ account }) => account),
    lines.map(({ requestId }) => requestId),
    lines.map(({ subject }) => JSON.stringify(subject)),
    lines.map(({ reason }) => reason),
    lines.map(({ at }) => at),
    lines.map(({ count }) => count),
    lines.map(({ answer }) => answer),
  ]
  await Promise.all([db.run(ADD_REFUSALS, columns), db.run(TRIM_REFUSALS, [most])])
}

export async function refusals(
  db: Connection,
  account: string,
  requestId: string | undefined,
  limit: number,
): Promise<RefusalLine[]> {
  const found = await db.run(REFUSALS, [account, requestId ?? null, limit])
  return found.map((row: Row) => ({
    account: row[0] as string,
    requestId: row[1] as string,
    subject: JSON.parse(row[2] as string) as Record<string, string>,
    reason: row[3] as string,
    at: row[4] as number,
    count: row[5] as number,
    answer: row[6] as string,
  }))
}

export async function eraseRefusals(
  db: Connection,
  account: string,
  dimension: string,
  value: string,
): Promise<void> {
  await db.run(ERASE_REFUSALS, [account, dimension, value])
}
