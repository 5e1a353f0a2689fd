import { SluiceError } from '../../errors.ts'
import type { AccountCell, Cell, Key, RequestCell } from '../../kernel/cells.ts'
import type { Millis } from '../../units.ts'
import type { Change, Reader, Session } from '../coalesce.ts'
import type { Cache, Known, Row } from './cache.ts'
import { learnKnownIds } from './known-ids.ts'
import { KINDS, type Reading } from './reader.ts'
import {
  DROP_CELL,
  DROP_REQUEST,
  ERASE_ENTRY,
  NEW_ACCOUNT,
  NEW_CELL,
  NEW_ENTRY,
  NEW_REQUEST,
  type Rows,
  SET_CELL,
  SET_CELL_DUE,
  SET_REQUEST,
} from './rows.ts'
import { SLOTS } from './schema.ts'

/** The next ids to give out. One that a failed commit had taken stays unused. */
export interface Ids {
  account: number
  request: number
}

export interface Sessions {
  begin(now: Millis): Session
  /** Forgets what was cached and reads the ids anew, after generations have come and gone. */
  refresh(): void
  readonly cached: number
  /** No batch begins after this. */
  close(): void
}

export interface SessionOptions {
  readonly reading: Reading
  readonly cache: Cache
  readonly write: (rows: Rows) => Promise<void>
  /** Whether nobody else writes to the file: then an id that is new can be told without looking. */
  readonly alone?: boolean
}

/** Rows to cache once the commit is known to stand; null for one that is gone. */
interface Learned {
  readonly account: string
  readonly known: Known
  readonly rows: ReadonlyMap<Key, Row | null>
}

/**
 * Batches on SQLite: reads are synchronous, through the cache, on this thread; writes leave as one message. Ids of rows
 * are given out here, because there is only one process and only one batch that may touch an account.
 */
export function createSessions({ reading, cache, write, alone }: SessionOptions): Sessions {
  const ids: Ids = { account: 0, request: 0 }
  /** Of accounts in batches on their way, what those will have made of them, the oldest first. */
  const onTheWay = new Map<string, Learned[]>()
  let knownIds: ReturnType<typeof learnKnownIds> | undefined

  function refresh(): void {
    reading.refresh()
    cache.clear()
    ids.account = reading.lastAccount() + 1
    ids.request = (reading.lastRequest() ?? 0) + 1
    knownIds?.stop()
    knownIds = alone ? learnKnownIds(reading) : undefined
  }

  function know(account: string): Known {
    let known = cache.get(account)
    if (known !== undefined) return known
    reading.snapshot()
    const found = reading.account(account)
    known = { id: found?.id ?? 0, nextCell: 0, rows: new Map() }
    if (found?.row !== undefined) known.rows.set('account', found.row)
    cache.set(account, known)
    return known
  }

  function rowOf(account: string, known: Known, key: Key): Row | undefined {
    const row = known.rows.get(key)
    if (row !== undefined || known.id === 0 || key === 'account') return row
    const isRequest = key.startsWith('request:')
    if (isRequest && knownIds?.mayKnow(known.id, key.slice('request:'.length)) === false) return undefined
    reading.snapshot()
    const found = isRequest ? reading.request(account, known.id, key) : reading.cell(account, known.id, key)
    if (found !== undefined && isKept(key, found.cell)) cache.setRow(known, key, found)
    return found
  }

  function readerOf(account: string): Reader {
    return (key) => {
      const known = know(account)
      if (key.startsWith('entry:')) {
        if (known.id === 0) return null
        reading.snapshot()
        return reading.entry(known.id, Number(key.slice(6)))
      }
      if (key.startsWith('due:')) {
        if (known.id === 0) return { requests: [], complete: true }
        reading.snapshot()
        return reading.openHolds(account, known.id, Number(key.slice(4)))
      }
      return rowOf(account, known, key)?.cell ?? null
    }
  }

  function nextCell(known: Known): number {
    if (known.nextCell === 0) {
      reading.snapshot()
      known.nextCell = Math.max(reading.lastCellOf(known.id) ?? 0, known.id * SLOTS) + 1
    }
    if (known.nextCell >= (known.id + 1) * SLOTS)
      throw new SluiceError('too_many', 'The account has too many cells')
    return known.nextCell++
  }

  /** Appends the rows of one account's change. What they will have made of the cache is returned. */
  function encode(change: Change, rows: Rows): Learned {
    const { account } = change
    const before = onTheWay.get(account) ?? NONE
    const known = before.at(-1)?.known ?? registered(know(account), account, rows)
    const { id } = known
    const learned = new Map<Key, Row | null>()
    change.writes.forEach((cell, key) => {
      const pending =
        before === NONE ? undefined : before.findLast((earlier) => earlier.rows.has(key))?.rows.get(key)
      const row = pending === undefined ? rowOf(account, known, key) : (pending ?? undefined)
      const written = encodeCell(known, key, cell, row, rows)
      learned.set(key, written === null || isKept(key, written.cell) ? written : { ...written, cell: CLOSED })
    })
    for (const { seq, kind, body, private: part, hash } of change.entries) {
      rows.push(NEW_ENTRY, id, seq, KINDS.indexOf(kind), body, part, hash)
    }
    change.erase?.forEach((seq) => void rows.push(ERASE_ENTRY, id, seq))
    return { account, known, rows: learned }
  }

  /** The account with an id, a new one where it does not exist yet. */
  function registered(known: Known, account: string, rows: Rows): Known {
    if (known.id !== 0) return known
    const id = ids.account++
    rows.push(NEW_ACCOUNT, id, account)
    return { id, nextCell: id * SLOTS + 1, rows: new Map() }
  }

  function encodeCell(
    known: Known,
    key: Key,
    cell: Cell | null,
    row: Row | undefined,
    rows: Rows,
  ): Row | null {
    const isRequest = key.startsWith('request:')
    if (cell === null) {
      if (row === undefined) return null
      if (isRequest) rows.push(DROP_REQUEST, row.generation, row.id)
      else rows.push(DROP_CELL, row.id)
      return null
    }
    const body = JSON.stringify(cell)
    if (isRequest) {
      const expiresAt = instant((cell as RequestCell).expiresAt, key)
      if (row !== undefined) rows.push(SET_REQUEST, row.generation, row.id, known.id, expiresAt, body)
      const generation = row?.generation ?? reading.current()
      const id = row?.id ?? ids.request++
      if (row === undefined) {
        const requestId = key.slice('request:'.length)
        rows.push(NEW_REQUEST, generation, id, known.id, requestId, expiresAt, body)
        // Before it is committed, and even if it never is: nobody may take it for new from now on.
        knownIds?.add(known.id, requestId)
      }
      return { generation, id, cell }
    }
    const dueAt = key === 'account' ? instant((cell as AccountCell).dueAt, key) : null
    if (row !== undefined) {
      if (key === 'account' && (row.cell as AccountCell).dueAt !== dueAt)
        rows.push(SET_CELL_DUE, row.id, known.id, dueAt, body)
      else rows.push(SET_CELL, row.id, known.id, body)
      return { generation: 0, id: row.id, cell }
    }
    const id = key === 'account' ? known.id * SLOTS : nextCell(known)
    rows.push(NEW_CELL, id, known.id, key === 'account' ? null : key, dueAt, body)
    return { generation: 0, id, cell }
  }

  /** The cache follows the commit, never leads it. */
  function learn({ account, known: { id }, rows }: Learned): void {
    const known = know(account)
    known.id = id
    rows.forEach((row, key) => {
      if (row !== null && isKept(key, row.cell)) cache.setRow(known, key, row)
      else known.rows.delete(key)
    })
  }

  function setOff(learned: readonly Learned[]): void {
    for (const one of learned) {
      const others = onTheWay.get(one.account)
      if (others === undefined) onTheWay.set(one.account, [one])
      else others.push(one)
    }
  }
  function arrive(learned: readonly Learned[]): void {
    for (const one of learned) {
      const others = onTheWay.get(one.account)?.filter((other) => other !== one) ?? []
      if (others.length === 0) onTheWay.delete(one.account)
      else onTheWay.set(one.account, others)
    }
  }

  function begin(now: Millis): Session {
    let rows: Rows = []
    const learned: Learned[] = []
    return {
      now,
      reader: readerOf,
      fetch: async () => {},
      stage(change) {
        const before = rows.length
        try {
          learned.push(encode(change, rows))
        } catch (error) {
          rows.length = before
          throw error
        }
        return bytesOf(rows, before)
      },
      commit() {
        reading.endSnapshot()
        const written = write(rows)
        // They are the writer's now: kept here as well, each garbage collection would move them.
        rows = []
        setOff(learned)
        return written.then(
          () => {
            arrive(learned)
            for (const account of learned) learn(account)
            reading.endSnapshot()
          },
          (error) => {
            arrive(learned)
            // It may stand all the same: what is true now has to be read again.
            for (const { account } of learned) cache.delete(account)
            throw error
          },
        )
      },
      abandon: reading.endSnapshot,
    }
  }

  refresh()
  return {
    begin,
    refresh,
    get cached() {
      return cache.size
    },
    close: () => knownIds?.stop(),
  }
}

const NONE: readonly Learned[] = []
/** In place of a closed request while it is on its way: only its row is needed then. */
const CLOSED = { expiresAt: null } as RequestCell
/** A closed request is seldom asked for again: it would only push others out. */
const isKept = (key: Key, cell: Cell): boolean =>
  !key.startsWith('request:') || (cell as RequestCell).expiresAt !== null

/** Checked, because SQLite takes NaN for NULL. */
function instant(value: Millis | null, key: Key): Millis | null {
  if (value === null || Number.isSafeInteger(value)) return value
  throw new TypeError(`${key} has no whole instant in its index: ${value}`)
}

function bytesOf(rows: Rows, from: number): number {
  let bytes = 0
  for (let i = from; i < rows.length; i++) {
    const value = rows[i]
    bytes += typeof value === 'string' ? value.length : 8
  }
  return bytes
}
