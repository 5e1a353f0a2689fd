/** The rows of the comparator on PostgreSQL, in the statements of `src/store/postgres/rows.ts`. */
import type { Statement, Value } from '../../src/store/postgres/connection.ts'
import * as rows from '../../src/store/postgres/rows.ts'
import type { Written } from '../sample.ts'

/** One operation to be written. */
export interface Op {
  readonly written: Written
  readonly account: string
  readonly subject: string
  readonly requestId: string
  /** Whether it opens the request, or closes it. */
  readonly opens: boolean
}

const GENERATION = 1
const POSITION_BASE = 0
const HOLD_MS = 600_000

/**
 * What a batch writes, in the store's order. A cell that several operations replace is written once, as the last left it.
 * Cells go by name: where two batches want the same ones and nobody locks accounts, any other order would be a deadlock.
 */
export function statementsOf(
  batch: readonly Op[],
  nextSeq: (account: string) => number,
): readonly (readonly [Statement, Value[]])[] {
  const now = Date.now()
  const owners = [...new Map(batch.map((op) => [op.account, op]))].sort(byName)
  const subjects = [...new Map(batch.map((op) => [`${op.account} ${op.subject}`, op]))].sort(byName)
  const opened = batch.filter(({ opens }) => opens)
  const closed = batch.filter(({ opens }) => !opens)
  const entries = batch.flatMap(({ written, account, requestId }) =>
    written.entries.map((entry) => [
      account,
      nextSeq(account),
      now,
      now,
      rows.KINDS.indexOf(entry.kind),
      entry.body.includes('"request":"') ? requestId : null,
      entry.body,
      entry.private,
      entry.hash,
    ]),
  )
  const all: (readonly [Statement, Value[]])[] = [
    [
      rows.SET_ACCOUNTS,
      columns(
        owners.map(([name, { written }]) => [name, written.due ? now + HOLD_MS : null, written.account]),
      ),
    ],
    [rows.SET_CELLS, columns(subjects.map(([, op]) => [op.account, op.subject, op.written.subject]))],
    [
      rows.SET_HOLDS,
      columns(
        opened.map(({ account, requestId, written }) => [account, requestId, now + HOLD_MS, written.request]),
      ),
    ],
    [rows.DROP_HOLDS, columns(closed.map(({ account, requestId }) => [account, requestId]))],
    [
      rows.ADD_REQUESTS,
      columns(
        closed.map(({ account, requestId, written }) => [GENERATION, account, requestId, written.request]),
      ),
    ],
    [rows.ADD_ENTRIES, [...columns(entries), POSITION_BASE]],
  ]
  return all.filter(([, [first]]) => first !== undefined && first !== POSITION_BASE)
}

const byName = ([a]: readonly [string, Op], [b]: readonly [string, Op]): number => (a < b ? -1 : 1)

type Cells = readonly (string | number | null)[]
const columns = (table: readonly Cells[]): Cells[] =>
  (table[0] ?? []).map((_, column) => table.map((row) => row[column] as Cells[number]))
