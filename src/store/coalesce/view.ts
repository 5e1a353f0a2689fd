import type { Cell, Cells, DueHolds, Key, RequestCell } from '../../kernel/cells.ts'
import type { StoredEntry } from '../../ledger/entries.ts'
import type { Done } from '../../store.ts'
import type { Millis } from '../../units.ts'
import type { Change, OpenHolds, Reader } from './backend.ts'
import type { Op } from './queue.ts'

type Seen = Cell | StoredEntry | DueHolds | null

/** One account's part of a batch: its operations, and what those decided so far have changed. */
export interface Share {
  readonly account: string
  readonly ops: readonly Op[]
  /** How many of the operations are decided. */
  decided: number
  /** What batches on their way have changed in this account, the oldest first: seen, and not committed yet. */
  readonly earlier: readonly Change[]
  /** The account has been released already, since its next batch may build on this one. */
  passedOn: boolean
  reader: Reader | undefined
  writes: Map<Key, Cell | null>
  entries: StoredEntry[]
  erase: Set<number> | undefined
}

const NOTHING: readonly Change[] = []
export function shareOf(account: string, ops: readonly Op[], earlier = NOTHING): Share {
  const changes = { writes: new Map(), entries: [], erase: undefined }
  return { account, ops, decided: 0, earlier, passedOn: false, reader: undefined, ...changes }
}

export function isTouched(share: Share): boolean {
  return share.writes.size > 0 || share.entries.length > 0 || share.erase !== undefined
}

/** In place of what has been given away; nothing is decided for that share any more. */
const NO_WRITES = new Map<Key, Cell | null>()
/**
 * Gives away what the steps have changed. A batch in flight that kept it as well made each garbage collection move three
 * times as much.
 */
export function handOver(share: Share): Change {
  const { account, writes, entries, erase } = share
  share.writes = NO_WRITES
  share.entries = []
  share.erase = undefined
  return { account, writes, entries, erase }
}

/** Takes over what a step asks to change. */
export function apply(share: Share, done: Done<unknown>): void {
  for (const write of done.writes) share.writes.set(write.key, write.cell)
  for (const entry of done.entries) share.entries.push(entry)
  if (done.erase === undefined) return
  for (const seq of done.erase) {
    const index = indexOf(share.entries, seq)
    if (index === -1) {
      share.erase ??= new Set()
      share.erase.add(seq)
    } else share.entries[index] = { ...(share.entries[index] as StoredEntry), private: null }
  }
}

/**
 * What a step sees under a key: what earlier steps of its batch changed, over batches on their way, over what is committed.
 * Undefined means that `missing` names something that has to be fetched first.
 */
export function look(share: Share, key: Key, now: Millis, missing: (key: Key) => void): Seen | undefined {
  const pending = pendingCell(share, key)
  if (pending !== undefined) return pending
  if (key.startsWith('due:')) return lookDue(share, Number(key.slice(4)), now, missing)
  if (key.startsWith('entry:')) return lookEntry(share, key, Number(key.slice(6)), missing)
  return read(share, key, missing) as Seen | undefined
}

/** Null where it is to be removed. */
function pendingCell(share: Share, key: Key): Cell | null | undefined {
  const own = share.writes.get(key)
  if (own !== undefined || share.earlier.length === 0) return own
  return share.earlier.findLast(({ writes }) => writes.has(key))?.writes.get(key)
}

function lookEntry(
  share: Share,
  key: Key,
  seq: number,
  missing: (key: Key) => void,
): StoredEntry | null | undefined {
  const changes = [...share.earlier, share]
  for (const { entries } of changes) {
    const index = indexOf(entries, seq)
    if (index !== -1) return withoutErased(entries[index] as StoredEntry, changes)
  }
  const found = read(share, key, missing) as StoredEntry | null | undefined
  return found && withoutErased(found, changes)
}

function withoutErased(entry: StoredEntry, changes: readonly Pick<Change, 'erase'>[]): StoredEntry {
  return changes.some(({ erase }) => erase?.has(entry.seq)) ? { ...entry, private: null } : entry
}

function read(share: Share, key: Key, missing: (key: Key) => void): ReturnType<Reader> {
  const found = share.reader?.(key)
  if (found === undefined) missing(key)
  return found
}

function indexOf(entries: readonly StoredEntry[], seq: number): number {
  const first = entries[0]
  if (first === undefined) return -1
  const index = seq - first.seq
  return entries[index]?.seq === seq ? index : entries.findIndex((entry) => entry.seq === seq)
}

/**
 * Open holds past their end, as this batch leaves them. To know the first n and the one after them, n + 1 committed
 * ones are enough, and one more for each request that the batch itself, or one on its way, has changed.
 */
function lookDue(
  share: Share,
  count: number,
  now: Millis,
  missing: (key: Key) => void,
): DueHolds | undefined {
  const changed = new Map<Key, RequestCell | null>()
  for (const { writes } of [...share.earlier, share]) {
    for (const [key, cell] of writes)
      if (key.startsWith('request:')) changed.set(key, cell as RequestCell | null)
  }
  const found = read(share, `due:${count + 1 + changed.size}`, missing) as OpenHolds | undefined
  if (found === undefined) return undefined
  let open = found.requests
  if (changed.size > 0) {
    open = open.filter((request) => !changed.has(`request:${request.id}`))
    const opened = [...changed.values()].filter((request) => request !== null && request.expiresAt !== null)
    open = [...open, ...(opened as RequestCell[])].sort(byEnd)
  }
  const requests: RequestCell[] = []
  for (const request of open) {
    if (requests.length === count || endOf(request) > now) return { requests, nextAt: endOf(request) }
    requests.push(request)
  }
  return { requests, nextAt: null }
}

const endOf = (request: RequestCell): Millis => request.expiresAt ?? Number.POSITIVE_INFINITY

export function byEnd(a: RequestCell, b: RequestCell): number {
  return endOf(a) - endOf(b) || (a.id < b.id ? -1 : a.id > b.id ? 1 : 0)
}

/** Everything an operation named or asked for; undefined where some of it has to be fetched first. */
export function lookAll(share: Share, op: Op, now: Millis, missing: (key: Key) => void): Cells | undefined {
  const cells = new Map<Key, Seen>()
  let whole = true
  for (const key of op.keys) {
    const seen = look(share, key, now, missing)
    if (seen === undefined) whole = false
    else cells.set(key, seen)
  }
  if (op.extra !== undefined) {
    for (const key of op.extra) {
      const seen = look(share, key, now, missing)
      if (seen === undefined) whole = false
      else cells.set(key, seen)
    }
  }
  return whole ? cells : undefined
}
