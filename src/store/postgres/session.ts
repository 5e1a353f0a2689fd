import type { AccountCell, Cell, Key, RequestCell } from '../../kernel/cells.ts'
import type { StoredEntry } from '../../ledger/entries.ts'
import type { Millis } from '../../units.ts'
import {
  type Change,
  type Missing,
  type OpenHolds,
  type Reader,
  type Session,
  SYSTEM_ACCOUNT,
  type Wanted,
} from '../coalesce.ts'
import type { Connection, Row, Statement, Value } from './connection.ts'
import { commitError, isLockTimeout } from './failure.ts'
import type { Parsed } from './parsed.ts'
import * as rows from './rows.ts'

export interface SessionOptions {
  /** In place of the database's clock; for tests. */
  readonly clock: (() => Millis) | undefined
  readonly parsed: Parsed
  /** Accounts that another node had when this one came, and how often in a row. */
  readonly passedOver: Map<string, number>
  /** Gives the connection back; it is not used again where it is broken. */
  readonly release: () => void
}

type Found = Cell | StoredEntry | OpenHolds | null

/** What a batch has read. An account that is not in it is asked for nothing. */
interface Known {
  readonly cells: Map<string, Map<Key, Found>>
  /** In which generation a closed request stands. */
  readonly generations: Map<string, number>
  readonly parsed: Parsed
}

/** How often an account is passed over before it is waited for. */
const PATIENCE = 2

const place = (account: string, requestId: string): string => `${account}\n${requestId}`

/**
 * Begins a batch on a connection of its own, in one round trip: the locks, then the clock, then what the operations
 * name. An account that another node has is left for later, so that the others need not wait for it; the third time it is waited
 * for, before any other lock is taken, so that nobody waits in a circle.
 *
 * Locks are advisory: they hold for accounts that do not exist yet, they write nothing, and the transaction has no number
 * before it has them all, so that an account's entries stand in the order of the positions. What is read is read by later
 * statements, which see all that the one before them in the lock has committed.
 */
export async function beginSession(
  connection: Connection,
  batch: readonly Wanted[],
  options: SessionOptions,
): Promise<Session> {
  const waited = waitedFor(batch, options.passedOver)
  const others = batch.filter((one) => one !== waited)
  try {
    try {
      return await attempt(connection, waited, others, options)
    } catch (error) {
      if (waited === undefined || !isLockTimeout(error)) throw error
      options.passedOver.delete(waited.account)
      if (others.length === 0) throw error
      // Whoever has that account does not let it go: its callers are told, and the others of the batch are served.
      await connection.exec('rollback')
      const session = await attempt(connection, undefined, others, options)
      const { answer } = commitError(error, false)
      return { ...session, away: new Map([...(session.away ?? []), [waited.account, answer]]) }
    }
  } catch (error) {
    await connection.exec('rollback').catch(() => {})
    options.release()
    throw commitError(error, false)
  }
}

/**
 * One that stands alone makes nobody wait but its own; of several, the one that was passed over most often. One alone: where
 * two are waited for, nobody can tell which of them another node does not let go.
 */
function waitedFor(batch: readonly Wanted[], passedOver: ReadonlyMap<string, number>): Wanted | undefined {
  if (batch.length === 1) return batch[0]
  let waited: Wanted | undefined
  let most = PATIENCE - 1
  for (const one of batch) {
    const times = passedOver.get(one.account) ?? 0
    if (times > most) [waited, most] = [one, times]
  }
  return waited
}

/** Takes the locks and reads, in one round trip. */
async function attempt(
  connection: Connection,
  waited: Wanted | undefined,
  tries: readonly Wanted[],
  { clock: ownClock, parsed, passedOver, release }: SessionOptions,
): Promise<Session> {
  const known: Known = { cells: new Map(), generations: new Map(), parsed }
  const [, , busy, clock] = await Promise.all([
    connection.exec('begin'),
    waited === undefined ? [] : connection.run(rows.LOCK, [waited.account]),
    tries.length === 0 ? [] : connection.run(rows.TRY_LOCK, [tries.map(({ account }) => account)]),
    connection.run(rows.CLOCK),
    fetchAll(connection, wantedBy(waited === undefined ? tries : [waited, ...tries], parsed), known),
  ])
  await fetchSubjects(connection, known)
  const taken = new Set(busy.map(([account]) => account))
  const away = new Map<string, null>()
  for (const { account } of tries) {
    if (!taken.has(account)) passedOver.delete(account)
    else {
      passedOver.set(account, (passedOver.get(account) ?? 0) + 1)
      away.set(account, null)
    }
  }
  if (waited !== undefined) passedOver.delete(waited.account)
  const [at, generation, base] = clock[0] as Row
  const context = { generation: generation as number, base: base as number }
  const session = sessionOn(connection, known, ownClock?.() ?? (at as Millis), context, release)
  return away.size === 0 ? session : { ...session, away }
}

function wantedBy(batch: readonly Wanted[], parsed: Parsed): Missing[] {
  const missing: Missing[] = [{ account: SYSTEM_ACCOUNT, key: 'account' }]
  for (const { account, ops } of batch)
    for (const { keys, extra } of ops) {
      for (const key of keys) {
        missing.push({ account, key })
        if (rows.isRequest(key)) addSubjects(missing, account, parsed.peek(account, key))
      }
      extra?.forEach((key) => void missing.push({ account, key }))
    }
  return missing
}

/**
 * Whoever closes or grows a hold asks for the cells of its subject next. Each would ask for its own, one round trip after
 * another; so those of all open requests are fetched together, and at once where this node knows the request.
 */
async function fetchSubjects(connection: Connection, known: Known): Promise<void> {
  const missing: Missing[] = []
  for (const [account, cells] of known.cells)
    for (const [key, cell] of cells) if (rows.isRequest(key)) addSubjects(missing, account, cell as Cell)
  const unknown = missing.filter(({ account, key }) => !cellsOf(known, account).has(key))
  if (unknown.length > 0) await fetchAll(connection, unknown, known)
}

function addSubjects(missing: Missing[], account: string, cell: Cell | null | undefined): void {
  const request = cell as Partial<RequestCell> | null | undefined
  if (request?.state !== 'open') return
  for (const [dimension, value] of Object.entries(request.subject ?? {}))
    missing.push({ account, key: `subject:${dimension}=${value}` })
}

function sessionOn(
  connection: Connection,
  known: Known,
  now: Millis,
  context: { readonly generation: number; readonly base: number },
  release: () => void,
): Session {
  const writes = createWrites(known, now, context)
  let ended = false
  const end = (): void => {
    if (!ended) release()
    ended = true
  }
  return {
    now,
    reader: (account) => readerOf(known, account),
    async fetch(missing) {
      try {
        await fetchAll(connection, missing, known)
      } catch (error) {
        throw commitError(error, false)
      }
    },
    stage: writes.stage,
    async commit() {
      try {
        const sent = writes.statements().map(([statement, values]) => connection.run(statement, values))
        const [tag] = await Promise.all([connection.exec('commit'), ...sent])
        // A transaction that failed answers its commit with a rollback, and no error.
        if (tag !== 'COMMIT') throw new Error(`the commit was answered ${tag}`)
        writes.keep()
      } catch (error) {
        throw commitError(error, true)
      } finally {
        end()
      }
    },
    abandon() {
      // Whoever uses the connection next waits behind this in any case.
      connection.exec('rollback').catch(() => {})
      end()
    },
  }
}

function readerOf(known: Known, account: string): Reader {
  return (key) => known.cells.get(account)?.get(key)
}

// --- reading

/** Fetches keys of any kind, with one statement a kind, all in one round trip. */
async function fetchAll(connection: Connection, missing: readonly Missing[], known: Known): Promise<void> {
  const wanted = { account: pairs(), cell: pairs(), request: pairs(), entry: pairs() }
  const holds: Promise<void>[] = []
  for (const { account, key } of missing) {
    const of = cellsOf(known, account)
    if (key.startsWith('due:')) {
      holds.push(fetchHolds(connection, account, key, of))
      continue
    }
    // Null until it is found.
    if (!of.has(key)) of.set(key, null)
    const kind =
      key === 'account'
        ? 'account'
        : rows.isRequest(key)
          ? 'request'
          : key.startsWith('entry:')
            ? 'entry'
            : 'cell'
    wanted[kind].add(
      account,
      kind === 'request' ? rows.requestIdOf(key) : kind === 'entry' ? key.slice('entry:'.length) : key,
    )
  }
  const { account, cell, request, entry } = wanted
  await Promise.all([
    ...holds,
    account.ask(connection, rows.ACCOUNTS, [account.accounts], ([name, body]) => {
      cellsOf(known, name as string).set(
        'account',
        known.parsed.read(name as string, 'account', body as string),
      )
    }),
    cell.ask(connection, rows.CELLS, [cell.accounts, cell.keys], ([name, key, body]) => {
      cellsOf(known, name as string).set(
        key as Key,
        known.parsed.read(name as string, key as Key, body as string),
      )
    }),
    request.ask(
      connection,
      rows.REQUESTS,
      [request.accounts, request.keys],
      ([name, id, body, generation]) => {
        if (generation !== 0) known.generations.set(place(name as string, id as string), generation as number)
        const key: Key = `request:${id}`
        cellsOf(known, name as string).set(key, known.parsed.read(name as string, key, body as string))
      },
    ),
    entry.ask(connection, rows.ENTRIES, [entry.accounts, entry.keys], ([name, ...row]) => {
      const found = rows.entryOf(row)
      cellsOf(known, name as string).set(`entry:${found.seq}`, found)
    }),
  ])
}

function pairs() {
  const accounts: string[] = []
  const keys: string[] = []
  return {
    accounts,
    keys,
    add(account: string, key: string): void {
      accounts.push(account)
      keys.push(key)
    },
    async ask(
      connection: Connection,
      statement: Statement,
      values: readonly Value[],
      take: (row: Row) => void,
    ) {
      if (accounts.length === 0) return
      for (const row of await connection.run(statement, values)) take(row)
    },
  }
}

function cellsOf(known: Known, account: string): Map<Key, Found> {
  let cells = known.cells.get(account)
  if (cells === undefined) {
    cells = new Map()
    known.cells.set(account, cells)
  }
  return cells
}

async function fetchHolds(
  connection: Connection,
  account: string,
  key: Key,
  into: Map<Key, Found>,
): Promise<void> {
  const limit = Number(key.slice('due:'.length))
  const found = await connection.run(rows.OPEN_HOLDS, [account, limit])
  into.set(key, { requests: found.map(([body]) => rows.parseRequest(body)), complete: found.length < limit })
}

// --- writing

type Column = (string | number | null)[]
const columns = (count: number): Column[] => Array.from({ length: count }, () => [])

/** The rows of a batch, column by column. */
function createWrites(
  { generations, parsed }: Known,
  now: Millis,
  { generation, base }: { readonly generation: number; readonly base: number },
) {
  const table = {
    setAccounts: columns(3),
    dropAccounts: columns(1),
    setCells: columns(3),
    dropCells: columns(2),
    setHolds: columns(4),
    dropHolds: columns(2),
    addRequests: columns(4),
    dropRequests: columns(2),
    addEntries: columns(9),
    eraseEntries: columns(2),
  }
  const written: (readonly [account: string, key: Key, text: string, cell: Cell])[] = []
  let bytes = 0
  /** As text; parsed it is known once it stands. */
  const textOf = (account: string, key: Key, cell: Cell): string => {
    const text = JSON.stringify(cell)
    written.push([account, key, text, cell])
    return text
  }
  const add = (to: Column[], ...values: Column): void => {
    values.forEach((value, column) => {
      ;(to[column] as Column).push(value)
      bytes += typeof value === 'string' ? value.length : 8
    })
  }

  function write(account: string, key: Key, cell: Cell | null): void {
    if (rows.isRequest(key)) return writeRequest(account, rows.requestIdOf(key), cell as RequestCell | null)
    if (key === 'account') {
      if (cell === null) add(table.dropAccounts, account)
      else
        add(table.setAccounts, account, instant((cell as AccountCell).dueAt, key), textOf(account, key, cell))
    } else if (cell === null) add(table.dropCells, account, key)
    else add(table.setCells, account, key, textOf(account, key, cell))
  }

  /** An open request stands in `hold`, a closed one in its generation, and one that closes moves. */
  function writeRequest(account: string, id: string, cell: RequestCell | null): void {
    const closedIn = generations.get(place(account, id))
    const expiresAt = cell === null ? null : instant(cell.expiresAt, `request:${id}`)
    if (expiresAt !== null) {
      add(table.setHolds, account, id, expiresAt, textOf(account, `request:${id}`, cell as RequestCell))
      if (closedIn !== undefined) add(table.dropRequests, account, id)
      return
    }
    if (closedIn === undefined) add(table.dropHolds, account, id)
    if (cell !== null) add(table.addRequests, closedIn ?? generation, account, id, JSON.stringify(cell))
    else if (closedIn !== undefined) add(table.dropRequests, account, id)
  }

  function addAll(change: Change): void {
    change.writes.forEach((cell, key) => void write(change.account, key, cell))
    for (const { seq, kind, body, private: part, hash } of change.entries) {
      const { at, request } = headOf(body)
      const number = rows.KINDS.indexOf(kind)
      add(table.addEntries, change.account, seq, now, at ?? now, number, request, body, part, hash)
    }
    change.erase?.forEach((seq) => void add(table.eraseEntries, change.account, seq))
  }

  return {
    stage(change: Change): number {
      const before = bytes
      const lengths = Object.values(table).map(([first]) => first?.length ?? 0)
      try {
        addAll(change)
      } catch (error) {
        Object.values(table).forEach((one, place) => {
          for (const column of one) column.length = lengths[place] as number
        })
        bytes = before
        throw error
      }
      return bytes - before
    },
    /** The commit stands. */
    keep(): void {
      for (const one of written) parsed.keep(...one)
    },
    statements(): (readonly [Statement, Value[]])[] {
      const all: (readonly [Statement, Value[]])[] = [
        [rows.SET_ACCOUNTS, table.setAccounts],
        [rows.DROP_ACCOUNTS, table.dropAccounts],
        [rows.SET_CELLS, table.setCells],
        [rows.DROP_CELLS, table.dropCells],
        [rows.DROP_REQUESTS, table.dropRequests],
        [rows.SET_HOLDS, table.setHolds],
        [rows.DROP_HOLDS, table.dropHolds],
        [rows.ADD_REQUESTS, table.addRequests],
        [rows.ADD_ENTRIES, table.addEntries],
        [rows.ERASE_ENTRIES, table.eraseEntries],
      ]
      return all
        .filter(([, values]) => (values[0] as Column).length > 0)
        .map(([statement, values]) => [
          statement,
          statement === rows.ADD_ENTRIES ? [...values, base] : values,
        ])
    },
  }
}

/** The head of an entry's text (`ledger/entries.ts`), as far as it has columns of its own. */
const HEAD =
  /^\{"v":\d+,"seq":\d+,"kind":"\w+","at":(\d+)(?:,"recorded_at":\d+)?,"actor":"(?:[^"\\]|\\.)*"(?:,"request":("(?:[^"\\]|\\.)*"))?/

/** Cut out, since to read all of it takes ten times as long. A text that is no entry of ours has no such head. */
function headOf(body: string): { readonly at: Millis | undefined; readonly request: string | null } {
  const [, at, request] = HEAD.exec(body) ?? []
  return {
    at: at === undefined ? undefined : Number(at),
    request: request === undefined ? null : (JSON.parse(request) as string),
  }
}

function instant(value: Millis | null, key: string): Millis | null {
  if (value === null || Number.isSafeInteger(value)) return value
  throw new TypeError(`${key} has no whole instant in its index: ${value}`)
}
