import { DatabaseSync, type StatementSync } from 'node:sqlite'
import { SluiceError } from '../../errors.ts'
import type { AccountCell, Cell, Key, RequestCell } from '../../kernel/cells.ts'
import type { EntryKind, StoredEntry } from '../../ledger/entries.ts'
import type {
  EntryQuery,
  JournalRow,
  KeyedCell,
  Page,
  RefusalLine,
  UsageKept,
  UsageRange,
} from '../../store.ts'
import type { Millis } from '../../units.ts'
import { type OpenHolds, SYSTEM_ACCOUNT } from '../coalesce.ts'
import type { Row } from './cache.ts'
import type { IdRow } from './known-ids.ts'
import { createListing, type Listing } from './listing.ts'
import { sumOf } from './rows.ts'
import { checkIdentity, generations, SETTINGS, SLOTS } from './schema.ts'
import { prepareUsage } from './usage.ts'

/** In the order of the numbers in the file, which is the ledger's; a test holds the two together. */
export const KINDS: readonly EntryKind[] = ['usage', 'charge', 'balance', 'decision', 'change']

const REQUEST = 'request:'

type Value = string | number | null
type Values = readonly Value[]
type EntryRow = [seq: number, kind: number, body: string, private_: string | null, hash: string]

/** Reads of one file on a connection of their own, all of them short. Only what is committed is seen. */
export type Reading = ReturnType<typeof openReading>

export function openReading(path: string) {
  const db = new DatabaseSync(path, { readOnly: true })
  db.exec(SETTINGS)
  checkIdentity(db, path)
  const prepare = (sql: string): StatementSync => {
    const statement = db.prepare(sql)
    statement.setReturnArrays(true)
    return statement
  }
  const begin = db.prepare('begin')
  const commit = db.prepare('commit')
  const account = prepare(
    `select a.id, c.sum, c.body from account a left join cell c on c.id = a.id * ${SLOTS} where a.name = ?`,
  )
  const cellOf = prepare('select id, sum, body from cell where account = ? and key = ?')
  const lastCell = prepare('select max(id) from cell where id between ? and ?')
  const entry = prepare('select seq, kind, body, private, hash from journal where account = ? and seq = ?')
  const due = prepare(
    'select a.name, c.due_at from cell c join account a on a.id = c.account where c.due_at <= ? order by c.due_at limit ?',
  )
  const accountPage = prepare(
    `select a.name, a.id, c.sum, c.body from account a join cell c on c.id = a.id * ${SLOTS} where a.name > ? and a.name <> '${SYSTEM_ACCOUNT}' order by a.name limit ?`,
  )
  const cellPage = prepare(
    'select key, sum, body from cell where account = ? and key > ? and key >= ? and key < ? order by key limit ?',
  )
  const entryPage = ['asc', 'desc'].map((order) =>
    prepare(
      `select seq, kind, body, private, hash from journal where account = ? and seq between ? and ? and (? >> kind) & 1 order by seq ${order} limit ?`,
    ),
  ) as [StatementSync, StatementSync]
  const journal = prepare(
    'select a.name, j.id, j.seq, j.kind, j.body, j.private, j.hash from journal j join account a on a.id = j.account where j.id > ? and (? >> kind) & 1 order by j.id limit ?',
  )
  const refusals = prepare(
    'select account, request_id, subject, reason, at, count, answer from refusal where account = ?1 and (?2 is null or request_id = ?2) order by id desc limit ?3',
  )
  const usage = prepareUsage(db, prepare)
  const generationIds = prepare('select id from generation order by id desc')
  let requests = prepareRequests(db, prepare)
  let listing: Listing | undefined
  let inBatch = false

  /**
   * Reads of one batch share a snapshot: taking one for each read costs four system calls each time. Answers whether this
   * call took it, and its caller must end it.
   */
  function snapshot(): boolean {
    if (inBatch) return false
    begin.run()
    inBatch = true
    return true
  }

  function parse(name: string, key: Key, id: number, sum: Value, body: Value): Cell {
    if (sumOf(body as string, id) !== sum) throw altered(path, name, key)
    return JSON.parse(body as string) as Cell
  }

  function idOf(name: string): number {
    return (one(account, name)?.[0] as number | undefined) ?? 0
  }

  /** A whole id is found by the index that there is; all requests of an account are not. */
  function requestPage(id: number, prefix: string, after: string, limit: number): readonly unknown[] {
    const wide = REQUEST.startsWith(prefix)
    if (!wide && !prefix.startsWith(REQUEST)) return []
    if (after > REQUEST && !after.startsWith(REQUEST)) return []
    const afterId = after > REQUEST ? after.slice(REQUEST.length) : ''
    if (wide) return listing === undefined ? [] : listing.page(id, afterId, limit)
    const from = prefix.slice(REQUEST.length)
    return requests.page.all(id, afterId, from, afterPrefix(from), limit)
  }

  return {
    snapshot,
    /** Runs `look` so that all it reads is of one moment; where a batch has a snapshot open, of that one. */
    atOneMoment<T>(look: () => T): T {
      const own = snapshot()
      try {
        return look()
      } finally {
        if (own) {
          inBatch = false
          commit.run()
        }
      }
    },
    /** A snapshot that lasts until this connection is closed. */
    beginSnapshot(): void {
      begin.run()
      inBatch = true
    },
    endSnapshot(): void {
      if (!inBatch) return
      inBatch = false
      commit.run()
    },
    /** Takes notice of generations that have come and gone. */
    refresh(): void {
      const ids = generationIds.all() as unknown as [number][]
      if (String(ids) === String(requests.generations)) return
      requests = prepareRequests(db, prepare)
      listing = undefined
    },
    /** To be waited for before `cells` is asked for a prefix of all requests. */
    async listRequests(prefix: string): Promise<void> {
      if (!REQUEST.startsWith(prefix)) return
      listing ??= createListing(db, requests.generations)
      await listing.catchUp()
    },
    current: () => requests.current,
    generations: () => requests.generations,
    requestIds: (generation: number, afterId: string, afterAccount: number, limit: number) =>
      requests.ids.get(generation)?.all(afterId, afterAccount, limit) as unknown as readonly IdRow[],
    lastRequest: () => one(requests.last)?.[0] as number | null,
    lastAccount: () => Number(Object.values(db.prepare('select max(id) from account').get() ?? {})[0] ?? 0),
    lastCellOf: (id: number) => one(lastCell, id * SLOTS, (id + 1) * SLOTS - 1)?.[0] as number | null,

    account(name: string): { readonly id: number; readonly row: Row | undefined } | undefined {
      const found = one(account, name)
      if (found === undefined) return undefined
      const id = found[0] as number
      if (found[2] === null) return { id, row: undefined }
      const cell = parse(name, 'account', id, found[1] as Value, found[2] as Value)
      return { id, row: { id: id * SLOTS, generation: 0, cell } }
    },
    cell(name: string, id: number, key: Key): Row | undefined {
      const found = one(cellOf, id, key)
      if (found === undefined) return undefined
      return {
        id: found[0] as number,
        generation: 0,
        cell: parse(name, key, id, found[1] as Value, found[2] as Value),
      }
    },
    request(name: string, id: number, key: Key): Row | undefined {
      const found = one(requests.one, key.slice('request:'.length), id)
      if (found === undefined) return undefined
      const cell = parse(name, key, id, found[2] as Value, found[3] as Value)
      return { generation: found[0] as number, id: found[1] as number, cell }
    },
    entry(id: number, seq: number): StoredEntry | null {
      const found = one(entry, id, seq) as EntryRow | undefined
      return found === undefined ? null : entryOf(found)
    },
    openHolds(name: string, id: number, limit: number): OpenHolds {
      const found = requests.open.all(id, limit) as unknown as Values[]
      const cells = found.map(([requestId, , sum, body]) =>
        parse(name, `request:${requestId}`, id, sum as Value, body as Value),
      )
      return { requests: cells as RequestCell[], complete: found.length < limit }
    },

    /** Open requests in order of end, after one of them. */
    holdPage(name: string, id: number, after: RequestCell | undefined, limit: number): RequestCell[] {
      const values = [id, after?.expiresAt ?? -1, after?.id ?? '', limit]
      const found = requests.openAfter.all(...values) as unknown as Values[]
      return found.map(
        ([requestId, , sum, body]) =>
          parse(name, `request:${requestId}`, id, sum as Value, body as Value) as RequestCell,
      )
    },

    idOf,
    due(now: Millis, limit: number) {
      const found = due.all(now, limit) as unknown as [string, number][]
      return found.map(([name, dueAt]) => ({ account: name, dueAt }))
    },
    accounts({ after = '', limit }: Page): AccountCell[] {
      const found = accountPage.all(after, limit) as unknown as [string, number, number, string][]
      return found.map(([name, id, sum, body]) => parse(name, 'account', id, sum, body) as AccountCell)
    },
    cells(name: string, prefix: string, { after = '', limit }: Page): KeyedCell[] {
      const id = idOf(name)
      if (id === 0) return []
      const found: [Key, number, string][] = []
      if ('account'.startsWith(prefix) && after < 'account') {
        const own = one(account, name) as Values
        if (own[2] !== null) found.push(['account', own[1] as number, own[2] as string])
      }
      const until = afterPrefix(prefix)
      found.push(...(cellPage.all(id, after, prefix, until, limit) as unknown as typeof found))
      found.push(...(requestPage(id, prefix, after, limit) as typeof found))
      return found
        .sort(([a], [b]) => Buffer.compare(Buffer.from(a), Buffer.from(b)))
        .slice(0, limit)
        .map(([key, sum, body]) => ({ key, cell: parse(name, key, id, sum, body) }))
    },
    /** Of one moment, where the caller has a snapshot. */
    usage: (name: string, ranges: readonly UsageRange[]): UsageKept => usage(idOf(name), ranges),
    countHolds: () => one(requests.count)?.[0] as number,
    accountsOfRequest(requestId: string, limit: number): string[] {
      return (requests.accounts.all(requestId, limit) as unknown as [string][]).map(([name]) => name)
    },
    entries(name: string, query: EntryQuery): StoredEntry[] {
      const { from = 1, to = Number.MAX_SAFE_INTEGER, kinds, newestFirst = false, limit } = query
      const found = entryPage[newestFirst ? 1 : 0].all(idOf(name), from, to, maskOf(kinds), limit)
      return (found as unknown as EntryRow[]).map(entryOf)
    },
    journal(after: string | undefined, limit: number, kinds?: readonly EntryKind[]): JournalRow[] {
      const found = journal.all(Number(after ?? 0), maskOf(kinds), limit) as unknown as [
        string,
        number,
        ...EntryRow,
      ][]
      return found.map(([name, id, ...row]) => ({ account: name, position: String(id), entry: entryOf(row) }))
    },
    refusals(name: string, requestId: string | undefined, limit: number): RefusalLine[] {
      const found = refusals.all(name, requestId ?? null, limit) as unknown as Values[]
      return found.map((row) => ({
        account: row[0] as string,
        requestId: row[1] as string,
        subject: JSON.parse(row[2] as string) as Record<string, string>,
        reason: row[3] as string,
        at: row[4] as number,
        count: row[5] as number,
        answer: row[6] as string,
      }))
    },
    close: () => db.close(),
  }
}

/** The first row of a statement that was set to give arrays. */
const one = (statement: StatementSync, ...values: Value[]): Values | undefined =>
  statement.get(...values) as Values | undefined

interface RequestReads {
  readonly generations: readonly number[]
  readonly current: number
  readonly one: StatementSync
  /** By generation, in the order of the index. */
  readonly ids: ReadonlyMap<number, StatementSync>
  readonly open: StatementSync
  readonly openAfter: StatementSync
  readonly page: StatementSync
  readonly accounts: StatementSync
  readonly last: StatementSync
  readonly count: StatementSync
}

/** Statements over all generations, the present one first. */
function prepareRequests(db: DatabaseSync, prepare: (sql: string) => StatementSync): RequestReads {
  const ids = generations(db)
    .map((generation) => generation.id)
    .reverse()
  const union = (sql: (table: string, id: number) => string): string =>
    ids.map((id) => sql(`request_${id}`, id)).join(' union all ')
  const current = ids[0] ?? 0
  return {
    generations: ids,
    current,
    ids: new Map(
      ids.map((id) => [
        id,
        prepare(
          `select request_id, account from request_${id} where (request_id, account) > (?1, ?2) order by request_id, account limit ?3`,
        ),
      ]),
    ),
    one: prepare(
      union(
        (table, id) => `select ${id}, id, sum, body from ${table} where request_id = ?1 and account = ?2`,
      ),
    ),
    open: prepare(
      `select request_id, expires_at, sum, body from (${union((table) => `select * from (select request_id, expires_at, sum, body from ${table} where account = ?1 and expires_at is not null order by expires_at limit ?2)`)}) order by expires_at, request_id limit ?2`,
    ),
    openAfter: prepare(
      `select request_id, expires_at, sum, body from (${union((table) => `select * from (select request_id, expires_at, sum, body from ${table} where account = ?1 and expires_at is not null and expires_at >= ?2 and (expires_at, request_id) > (?2, ?3) order by expires_at, request_id limit ?4)`)}) order by expires_at, request_id limit ?4`,
    ),
    page: prepare(
      `select 'request:' || request_id, sum, body from (${union((table) => `select * from (select request_id, sum, body from ${table} where account = ?1 and request_id > ?2 and request_id >= ?3 and request_id < ?4 order by request_id limit ?5)`)}) order by request_id limit ?5`,
    ),
    accounts: prepare(
      `select distinct a.name from (${union((table) => `select account from ${table} where request_id = ?1`)}) r join account a on a.id = r.account order by a.name limit ?2`,
    ),
    last: prepare(`select max(id) from request_${current}`),
    count: prepare(
      `select sum(n) from (${union((table) => `select count(*) as n from ${table} where expires_at is not null`)})`,
    ),
  }
}

function entryOf([seq, kind, body, private_, hash]: EntryRow): StoredEntry {
  return { seq, kind: KINDS[kind] as EntryKind, body, private: private_, hash }
}

const maskOf = (kinds: readonly EntryKind[] | undefined): number =>
  kinds === undefined ? -1 : kinds.reduce((mask, kind) => mask | (1 << KINDS.indexOf(kind)), 0)

/** The least text that is greater than all that begin with this one, among texts that end in no U+10FFFF. */
const LAST = '\u{10ffff}'
const afterPrefix = (prefix: string): string => `${prefix}${LAST}`

function altered(path: string, account: string, key: Key): SluiceError {
  return new SluiceError(
    'unavailable',
    `${path}: the cell ${key} of ${account} does not match its checksum`,
    {
      path: `/${account}/${key}`,
      remedy: 'The file was altered or damaged: restore it from a backup.',
    },
  )
}
