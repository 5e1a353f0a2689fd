/** What stands in the tables, as statements read it and write it. Many rows go in one statement, as arrays. */
import type { Cell, Key, RequestCell } from '../../kernel/cells.ts'
import type { EntryKind, StoredEntry } from '../../ledger/entries.ts'
import { type Row, statement } from './connection.ts'

/** In the order of the numbers in the table, which is the ledger's; a test holds the two together. */
export const KINDS: readonly EntryKind[] = ['usage', 'charge', 'balance', 'decision', 'change']

export const parseCell = (body: Row[number] | undefined): Cell => JSON.parse(body as string) as Cell
export const parseRequest = (body: Row[number] | undefined): RequestCell =>
  JSON.parse(body as string) as RequestCell

/** The columns of an entry, in the order that `entryOf` takes them. */
export const ENTRY = 'seq, kind, body, private, hash'
export function entryOf([seq, kind, body, part, hash]: Row): StoredEntry {
  return {
    seq: seq as number,
    kind: KINDS[kind as number] as EntryKind,
    body: body as string,
    private: part as string | null,
    hash: hash as string,
  }
}

export const isRequest = (key: Key): key is `request:${string}` => key.startsWith('request:')
export const requestIdOf = (key: Key): string => key.slice('request:'.length)

// --- what a batch reads, once it has its accounts

/** The number that stands for an account is the same on every node. */
export const LOCK = statement('lock', 'select pg_advisory_xact_lock(hashtextextended($1, 0))')
/** Takes what is free, and answers what another node has. */
export const TRY_LOCK = statement(
  'try_lock',
  'select a from unnest($1::text[]) as a where not pg_try_advisory_xact_lock(hashtextextended(a, 0))',
)
/** The clock, read after the locks: a batch that waited must not decide by an older time than the one it waited for. */
export const CLOCK = statement(
  'clock',
  `select (extract(epoch from clock_timestamp()) * 1000)::bigint, (select max(id) from generation)::bigint,
     (select base from position_base)`,
)
export const ACCOUNTS = statement('accounts', 'select name, body from account where name = any($1::text[])')
/**
 * One look into the index for each key, here and below: planned on a table that was still empty, a join or `in` would read all
 * of it for as long as the connection lives.
 */
export const CELLS = statement(
  'cells',
  `select a, k, body from unnest($1::text[], $2::text[]) as u (a, k),
     lateral (select body from cell where account = a and key = k limit 1) found`,
)
/** Of a closed request the generation that has it; 0 of an open one. */
export const REQUESTS = statement(
  'requests',
  `select a, r, body, generation from unnest($1::text[], $2::text[]) as u (a, r), lateral (
     (select body, 0 as generation from hold where account = a and request_id = r limit 1)
     union all
     (select body, generation from request where account = a and request_id = r limit 1)
     limit 1
   ) found`,
)
export const ENTRIES = statement(
  'entries',
  `select a, ${ENTRY} from unnest($1::text[], $2::bigint[]) as u (a, s),
     lateral (select ${ENTRY} from journal where account = a and seq = s limit 1) found`,
)
export const OPEN_HOLDS = statement(
  'open_holds',
  'select body from hold where account = $1 order by expires_at, request_id limit $2',
)

// --- what a batch writes

/** `due_at` is lowered at once and raised by the sweep alone: see the migration. */
export const SET_ACCOUNTS = statement(
  'set_accounts',
  `insert into account (name, due_at, body) select * from unnest($1::text[], $2::bigint[], $3::text[])
     on conflict (name) do update set body = excluded.body, due_at = least(account.due_at, excluded.due_at)`,
)
export const SET_CELLS = statement(
  'set_cells',
  `insert into cell (account, key, body) select * from unnest($1::text[], $2::text[], $3::text[])
     on conflict (account, key) do update set body = excluded.body`,
)
export const DROP_ACCOUNTS = statement('drop_accounts', 'delete from account where name = any($1::text[])')
export const DROP_CELLS = statement(
  'drop_cells',
  'delete from cell where (account, key) in (select * from unnest($1::text[], $2::text[]))',
)
export const SET_HOLDS = statement(
  'set_holds',
  `insert into hold (account, request_id, expires_at, body)
     select * from unnest($1::text[], $2::text[], $3::bigint[], $4::text[])
     on conflict (account, request_id) do update set expires_at = excluded.expires_at, body = excluded.body`,
)
export const DROP_HOLDS = statement(
  'drop_holds',
  `delete from hold where ctid = any(array(select found.place from unnest($1::text[], $2::text[]) as u (a, r),
     lateral (select ctid as place from hold where account = a and request_id = r limit 1) found))`,
)
export const ADD_REQUESTS = statement(
  'add_requests',
  `insert into request (generation, account, request_id, body)
     select * from unnest($1::integer[], $2::text[], $3::text[], $4::text[])
     on conflict (account, request_id, generation) do update set body = excluded.body`,
)
export const DROP_REQUESTS = statement(
  'drop_requests',
  'delete from request where (account, request_id) in (select * from unnest($1::text[], $2::text[]))',
)
export const ADD_ENTRIES = statement(
  'add_entries',
  `insert into journal (account, seq, recorded_at, at, kind, request, body, private, hash, position)
     select *, $10 + pg_current_xact_id()::text::bigint
     from unnest($1::text[], $2::bigint[], $3::bigint[], $4::bigint[], $5::smallint[], $6::text[], $7::text[], $8::text[], $9::text[])`,
)
export const ERASE_ENTRIES = statement(
  'erase_entries',
  'update journal set private = null where (account, seq) in (select * from unnest($1::text[], $2::bigint[]))',
)
