/** Totals of usage: rows of their own, changed where their account's revision still stands. */
import type { DatabaseSync, StatementSync } from 'node:sqlite'
import type { UsageChange, UsageKept, UsageRange, UsageTotal } from '../../store.ts'
import { inTransaction } from './schema.ts'

const NOTHING: UsageKept = { through: 0, revision: 0, earliestAt: null, latestAt: null, totals: [] }
type Total = [string, number, number, string, string, number, number, number, number]

/** Who only reads may have a file before it that nobody has brought up to date: it has no totals yet. */
export function prepareUsage(
  db: DatabaseSync,
  prepare: (sql: string) => StatementSync,
): (account: number, ranges: readonly UsageRange[]) => UsageKept {
  const table = db.prepare("select 1 from sqlite_schema where name = 'usage_total'")
  if (table.get() === undefined) return () => NOTHING
  const state = prepare(
    'select through, revision, earliest_at, latest_at from usage_account where account = ?',
  )
  const totals = prepare(
    'select start_at, dimensions, requests, charged, quantities, sources, first_at, last_at, first_seq, last_seq from usage_total where account = ? and span_ms = ? and start_at >= ? and start_at < ?',
  )
  return (account, ranges) => {
    const found = state.get(account) as [number, number, number | null, number | null] | undefined
    if (found === undefined) return NOTHING
    const [through, revision, earliestAt, latestAt] = found
    const kept: UsageTotal[] = []
    for (const { spanMs, from, to } of ranges) {
      const rows = totals.all(account, spanMs, from, to) as unknown as [number, ...Total][]
      for (const [startAt, ...row] of rows) kept.push(totalOf(spanMs, startAt, row))
    }
    return { through, revision, earliestAt, latestAt, totals: kept }
  }
}

function totalOf(spanMs: number, startAt: number, row: Total): UsageTotal {
  const [group, requests, charged, quantities, sources, firstAt, lastAt, firstSeq, lastSeq] = row
  return {
    spanMs,
    startAt,
    group,
    requests,
    charged,
    quantities: JSON.parse(quantities),
    sources: JSON.parse(sources),
    firstAt,
    lastAt,
    firstSeq,
    lastSeq,
  }
}

/** Writes them; answers whether the revision still stood. */
export function usageWriter(db: DatabaseSync) {
  const account = db.prepare('select id from account where name = ?')
  const first = db.prepare(
    'insert into usage_account (account, revision, through, earliest_at, latest_at) values (?, ? + 1, ?, ?, ?) on conflict do nothing',
  )
  const next = db.prepare(
    'update usage_account set revision = revision + 1, through = ?, earliest_at = ?, latest_at = ? where account = ? and revision = ?',
  )
  const drop = db.prepare(
    'delete from usage_total where account = ? and span_ms = ? and start_at = ? and dimensions = ?',
  )
  const put = db.prepare('insert or replace into usage_total values (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)')

  return (name: string, revision: number, change: UsageChange): boolean => {
    const { through, earliestAt, latestAt, totals, dropped } = change
    const { id } = (account.get(name) ?? {}) as { id?: number }
    if (id === undefined) return false
    let kept = false
    inTransaction(db, () => {
      const moved =
        revision === 0
          ? first.run(id, revision, through, earliestAt, latestAt)
          : next.run(through, earliestAt, latestAt, id, revision)
      kept = moved.changes === 1
      if (!kept) return
      for (const { spanMs, startAt, group } of dropped) drop.run(id, spanMs, startAt, group)
      for (const total of totals) {
        const { spanMs, startAt, group, requests, charged, firstAt, lastAt, firstSeq, lastSeq } = total
        const amounts = [JSON.stringify(total.quantities), JSON.stringify(total.sources)]
        const reach = [firstAt, lastAt, firstSeq, lastSeq]
        put.run(id, spanMs, startAt, group, requests, charged, ...amounts, ...reach)
      }
    })
    return kept
  }
}
