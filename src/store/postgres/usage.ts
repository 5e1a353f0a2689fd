/** Totals of usage: rows of their own, changed where their account's revision still stands. */
import { hash } from 'node:crypto'
import type { UsageChange, UsageKept, UsageKey, UsageRange, UsageTotal } from '../../store.ts'
import { type Connection, type Row, statement, type Value } from './connection.ts'

const STATE = statement(
  'usage_state',
  'select through, revision, earliest_at, latest_at from usage_account where account = $1',
)
/**
 * Totals of one group as one JSON text: a question about a month reads some thousand of them, and took half as much of the
 * processor again where each was a row whose columns had to be taken apart. `offset 0` makes each range a look into the index:
 * planned while the table was empty, the account's totals were all held against every range, 600 ms in place of 20.
 */
const TOTALS = statement(
  'usage_totals',
  `select span, dimensions, '[' || string_agg(concat('[', start_at, ',', requests, ',', charged, ',', quantities, ',', sources,
       ',', first_at, ',', last_at, ',', first_seq, ',', last_seq, ']'), ',') || ']'
     from unnest($2::bigint[], $3::bigint[], $4::bigint[]) as u (span, low, high), lateral
       (select * from usage_total where account = $1 and span_ms = span and start_at >= low and start_at < high offset 0)
         found
     group by span, dimensions`,
)
const FIRST = statement(
  'usage_first',
  `insert into usage_account (account, revision, through, earliest_at, latest_at)
     values ($1, $2::bigint + 1, $3, $4, $5) on conflict (account) do nothing returning revision`,
)
const NEXT = statement(
  'usage_next',
  `update usage_account set revision = revision + 1, through = $3, earliest_at = $4, latest_at = $5
     where account = $1 and revision = $2 returning revision`,
)
const DROP = statement(
  'usage_drop',
  `delete from usage_total where ctid = any(array(
     select found.place from unnest($2::bigint[], $3::bigint[], $4::text[]) as u (span, start, hash), lateral
       (select ctid as place from usage_total
         where account = $1 and span_ms = span and start_at = start and dimensions_hash = hash limit 1) found))`,
)
const PUT = statement(
  'usage_put',
  `insert into usage_total (account, span_ms, start_at, dimensions_hash, dimensions, requests, charged, quantities, sources,
       first_at, last_at, first_seq, last_seq)
     select $1, * from unnest($2::bigint[], $3::bigint[], $4::text[], $5::text[], $6::bigint[], $7::bigint[], $8::text[],
       $9::text[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[])
     on conflict (account, span_ms, start_at, dimensions_hash) do update set requests = excluded.requests,
       charged = excluded.charged, quantities = excluded.quantities, sources = excluded.sources,
       first_at = excluded.first_at, last_at = excluded.last_at, first_seq = excluded.first_seq,
       last_seq = excluded.last_seq`,
)

/** Of one moment, in one round trip. */
export async function usage(
  db: Connection,
  account: string,
  ranges: readonly UsageRange[],
): Promise<UsageKept> {
  const asked = [
    ranges.map(({ spanMs }) => spanMs),
    ranges.map(({ from }) => from),
    ranges.map(({ to }) => to),
  ]
  const [, [state], rows] = await Promise.all([
    db.exec('begin isolation level repeatable read read only'),
    db.run(STATE, [account]),
    ranges.length === 0 ? [] : db.run(TOTALS, [account, ...asked]),
    db.exec('commit'),
  ])
  const [through, revision, earliestAt, latestAt] = (state ?? [0, 0, null, null]) as [
    number,
    number,
    number | null,
    number | null,
  ]
  return { through, revision, earliestAt, latestAt, totals: rows.flatMap(totalsOf) }
}

type Told = readonly [
  startAt: number,
  requests: number,
  charged: number,
  quantities: Record<string, number>,
  sources: Record<string, number>,
  firstAt: number,
  lastAt: number,
  firstSeq: number,
  lastSeq: number,
]

function totalsOf([span, dimensions, texts]: Row): UsageTotal[] {
  const spanMs = span as number
  const group = dimensions as string
  const told = JSON.parse(texts as string) as readonly Told[]
  return told.map(
    ([startAt, requests, charged, quantities, sources, firstAt, lastAt, firstSeq, lastSeq]) => ({
      spanMs,
      startAt,
      group,
      requests,
      charged,
      quantities,
      sources,
      firstAt,
      lastAt,
      firstSeq,
      lastSeq,
    }),
  )
}

export async function keepUsage(
  db: Connection,
  account: string,
  revision: number,
  { through, earliestAt, latestAt, totals, dropped }: UsageChange,
): Promise<boolean> {
  const stand = [account, revision, through, earliestAt, latestAt]
  try {
    const [, moved] = await Promise.all([db.exec('begin'), db.run(revision === 0 ? FIRST : NEXT, stand)])
    if (moved.length === 0) {
      await db.exec('rollback')
      return false
    }
    const written: Promise<unknown>[] = []
    if (dropped.length > 0) written.push(db.run(DROP, [account, ...keysOf(dropped)]))
    if (totals.length > 0) written.push(db.run(PUT, [account, ...keysOf(totals), ...sumsOf(totals)]))
    const [tag] = await Promise.all([db.exec('commit'), ...written])
    return tag === 'COMMIT'
  } catch (error) {
    await db.exec('rollback').catch(() => {})
    throw error
  }
}

/** 128 bits of it stand for a group in the key. */
const hashOf = (group: string): string => hash('sha256', group).slice(0, 32)
const keysOf = (keys: readonly UsageKey[]): Value[] => [
  keys.map(({ spanMs }) => spanMs),
  keys.map(({ startAt }) => startAt),
  keys.map(({ group }) => hashOf(group)),
]
const sumsOf = (totals: readonly UsageTotal[]): Value[] => [
  totals.map(({ group }) => group),
  totals.map(({ requests }) => requests),
  totals.map(({ charged }) => charged),
  totals.map(({ quantities }) => JSON.stringify(quantities)),
  totals.map(({ sources }) => JSON.stringify(sources)),
  totals.map(({ firstAt }) => firstAt),
  totals.map(({ lastAt }) => lastAt),
  totals.map(({ firstSeq }) => firstSeq),
  totals.map(({ lastSeq }) => lastSeq),
]
