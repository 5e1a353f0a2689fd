/** Section `postgres`: contestants of two processes each, on databases of their own on one server; then the audit. */
import { audits } from './audit.ts'
import {
  type Conditions,
  contest,
  marks,
  type Outcome,
  perSecond,
  ratio,
  type Stage,
  usual,
} from './contest.ts'
import type { Contestant, Marks, Settings } from './contestant.ts'
import { bytesOf } from './database.ts'
import { median } from './figures.ts'
import { usage } from './usage.ts'

export async function postgres(conditions: Conditions): Promise<Outcome> {
  const many = usual(conditions)
  const { sluice, raw, naive, rlf } = await contest(conditions, async (stage) => ({
    sluice: await team(stage, 'postgres', { accounts: many }),
    raw: await team(stage, 'postgres-raw', { accounts: many }),
    naive: await team(stage, 'postgres', { accounts: many, naive: true }),
    rlf: await team(stage, 'postgres-rlf', {}),
  }))
  const hot = await contest(conditions, async (stage) => ({
    sluice: await team(stage, 'postgres', { accounts: 1 }),
    raw: await team(stage, 'postgres-raw', { accounts: 1 }),
  }))
  const { cold, mixed } = await contest(conditions, async (stage) => ({
    cold: await team(stage, 'postgres', { accounts: many, offered: OFFERED }),
    mixed: await team(stage, 'postgres', { accounts: many, offered: OFFERED, mixed: true }),
  }))
  const report = await usage(conditions)
  const audit = await audits(conditions)
  return {
    figures: {
      ...report.figures,
      pg_pairs_per_s: perSecond(sluice),
      pg_raw_pairs_per_s: perSecond(raw),
      pg_hot_pairs_per_s: perSecond(hot.sluice),
      pg_hot_raw_pairs_per_s: perSecond(hot.raw),
      pg_naive_pairs_per_s: perSecond(naive),
      pg_mixed_cold_p99_ratio: ratio(mixed, cold, 'p99Ms'),
      pg_open_loop_p50_ms: median(marks(cold, 'p50Ms')),
      pg_open_loop_p99_ms: median(marks(cold, 'p99Ms')),
      rlf_pg_per_s: perSecond(rlf),
      pg_bytes_per_pair: median(marks(sluice, 'bytesPerPair')),
      ...audit.figures,
    },
    ratios: {
      'pg_pairs_per_s/pg_raw_pairs_per_s': ratio(sluice, raw),
      'pg_pairs_per_s/pg_naive_pairs_per_s': ratio(sluice, naive),
      'pg_pairs_per_s/rlf_pg_per_s': ratio(sluice, rlf),
      'pg_hot_pairs_per_s/pg_hot_raw_pairs_per_s': ratio(hot.sluice, hot.raw),
    },
    notes: [
      note('a pair of Sluice’s', sluice),
      note('a pair of raw’s', raw),
      note('a pair on one account', hot.sluice),
      `p99 of the cold operations: ${shown(cold, 'p99Ms')} ms alone, ${shown(mixed, 'p99Ms')} ms beside the hot ones`,
      ...report.notes,
      ...audit.notes,
    ],
  }
}

/** Pairs a second that are offered at fixed times, by both processes together. */
const OFFERED = 1_000

function note(what: string, turns: readonly Marks[]): string {
  const batch =
    turns[0]?.operationsPerBatch === undefined
      ? ''
      : `, ${shown(turns, 'operationsPerBatch')} operations a batch`
  return `${what}: ${shown(turns, 'micros')} µs of CPU in Node, ${shown(turns, 'bytesPerPair')} bytes${batch}`
}
const shown = (turns: readonly Marks[], name: string): string =>
  median(marks(turns, name)).toLocaleString('en-US', { maximumSignificantDigits: 3 })

/**
 * Two processes on one database, at the same time, as one contestant. The second finds what the first has prepared. What
 * they count is added; of times and sizes the larger is told.
 */
async function team(stage: Stage, name: string, settings: Settings): Promise<Contestant> {
  const url = await stage.database()
  const members = [
    await stage.enter(name, { ...settings, url, place: 0 }),
    await stage.enter(name, { ...settings, url, place: 1 }),
  ]
  return {
    async run(seconds) {
      const before = await bytesOf(url)
      const all = await Promise.all(members.map((member) => member.run(seconds)))
      const names = Object.keys(all[0] ?? {})
      const joined = Object.fromEntries(names.map((mark) => [mark, join(mark, marks(all, mark))]))
      return { ...joined, bytesPerPair: ((await bytesOf(url)) - before) / (joined.pairs ?? Number.NaN) }
    },
    async close() {},
  }
}

const ADDED = ['perSecond', 'pairs']
const join = (mark: string, values: readonly number[]): number =>
  ADDED.includes(mark) ? values.reduce((sum, value) => sum + value, 0) : Math.max(...values)
