/** What a replay found, for people and for programs. */
import type { AuditReport, Engine } from '../../engine.ts'
import { formatMicros, type Micros } from '../../units.ts'
import { reportText } from '../audit.ts'
import { bold, count, cuText, facts, instantText, share, table } from '../output.ts'
import { countUp, type Pointer, percentile, type Tally } from './tally.ts'

/** How it was replayed: everything that has to be the same for the numbers to be the same. */
export interface Setup {
  readonly trace: string
  readonly columns: string
  readonly policy: string
  readonly accounts: string
  readonly plans: string
  readonly estimates: string
  readonly durations: string
  readonly waits: string
  readonly time: string
  readonly store: string
}

export interface ReplayReport {
  readonly setup: Setup
  readonly requests: number
  readonly accounts: number
  readonly first_at: number | null
  readonly last_at: number | null
  readonly late_rows: number
  readonly outcomes: readonly {
    readonly outcome: string
    readonly reason: string
    readonly requests: number
  }[]
  readonly errors: Readonly<Record<string, number>>
  readonly sources: readonly { readonly source: string; readonly charged: string }[]
  readonly charged: string
  readonly returned: string
  readonly waits: {
    readonly told: number
    readonly honoured: number
    readonly admitted: number
    readonly p50_ms: number | null
    readonly p90_ms: number | null
  }
  /** Estimate ÷ charge. */
  readonly estimates: {
    readonly p10_ratio: number | null
    readonly p50_ratio: number | null
    readonly p90_ratio: number | null
    readonly too_low: number
    readonly settled: number
  }
  readonly speed: {
    readonly elapsed_ms: number
    readonly operations: number
    readonly operations_per_s: number
    readonly p50_ms: number | null
    readonly p99_ms: number | null
  }
  readonly audit: { readonly entries: number; readonly disagreements: number } | null
  /** Requests to look at with `sluice explain`. */
  readonly look_at: { readonly split: Pointer | null; readonly refused: Readonly<Record<string, Pointer>> }
}

export async function reportOf(
  setup: Setup,
  engine: Engine,
  tally: Tally,
  elapsedMs: number,
  lateRows: number,
  audit: AuditReport | undefined,
): Promise<ReplayReport> {
  const sources = await bySource(engine, tally)
  const none = (value: number | undefined): number | null => value ?? null
  const { waits, ratios, latencies } = tally
  return {
    setup,
    requests: tally.requests,
    accounts: tally.accounts.size,
    first_at: tally.requests === 0 ? null : tally.firstAt,
    last_at: tally.requests === 0 ? null : tally.lastAt,
    late_rows: lateRows,
    outcomes: [...tally.decisions]
      .map(([key, requests]) => {
        const [outcome = '', reason = ''] = key.split(' ')
        return { outcome, reason, requests }
      })
      .sort((a, b) => OUTCOMES.indexOf(a.outcome) - OUTCOMES.indexOf(b.outcome) || b.requests - a.requests),
    errors: Object.fromEntries(tally.errors),
    sources: sources.map(([source, amount]) => ({ source, charged: formatMicros(amount) })),
    charged: formatMicros(sources.reduce((sum, [, amount]) => sum + amount, 0)),
    returned: formatMicros(tally.returned),
    waits: {
      told: waits.told,
      honoured: waits.honoured,
      admitted: waits.admitted,
      p50_ms: none(percentile(waits.lengths, 0.5)),
      p90_ms: none(percentile(waits.lengths, 0.9)),
    },
    estimates: {
      p10_ratio: none(percentile(ratios, 0.1)),
      p50_ratio: none(percentile(ratios, 0.5)),
      p90_ratio: none(percentile(ratios, 0.9)),
      too_low: tally.tooLow,
      settled: [...tally.decisions].reduce(
        (sum, [key, n]) => (/^(allow|partial) /.test(key) ? sum + n : sum),
        0,
      ),
    },
    speed: {
      elapsed_ms: Math.round(elapsedMs),
      operations: tally.operations,
      operations_per_s: Math.round((1000 * tally.operations) / elapsedMs),
      p50_ms: none(percentile(latencies, 0.5)),
      p99_ms: none(percentile(latencies, 0.99)),
    },
    audit: audit === undefined ? null : { entries: audit.entries, disagreements: audit.disagreements },
    look_at: { split: tally.split ?? null, refused: Object.fromEntries(tally.refused) },
  }
}

const OUTCOMES = ['allow', 'partial', 'wait', 'deny']

/** Grants are many and alike: they are summed by kind. */
async function bySource(engine: Engine, tally: Tally): Promise<readonly (readonly [string, Micros])[]> {
  const sums = new Map(tally.charged)
  for (const [account, amounts] of tally.grants) {
    const kinds = new Map<string, string>()
    let cursor: string | null = null
    do {
      const page: Awaited<ReturnType<Engine['grants']>> = await engine.grants(account, {
        limit: 200,
        ...(cursor !== null && { cursor }),
      })
      for (const { id, kind } of page.items) kinds.set(id, kind)
      cursor = page.next
    } while (cursor !== null)
    // A grant that was used up long ago may have left the account's list.
    for (const [grant, amount] of amounts) countUp(sums, `credits: ${kinds.get(grant) ?? 'used up'}`, amount)
  }
  return [...sums].sort(([, a], [, b]) => b - a)
}

const right = (title: string) => ({ title, align: 'right' as const })
const ms = (value: number | null): string =>
  value === null ? '–' : `${value.toFixed(value < 10 ? 2 : 0)} ms`
const times = (value: number | null): string => (value === null ? '–' : `${value.toFixed(2)}×`)

export function replayText(report: ReplayReport, elapsedAuditMs: number): string {
  const { setup, requests, outcomes, errors, sources, waits, estimates, speed } = report
  const charged = sources.reduce((sum, one) => sum + Number(one.charged), 0)
  const decided = [
    ...outcomes,
    ...Object.entries(errors).map(([code, n]) => ({ outcome: 'error', reason: code, requests: n })),
  ]
  const span = `${count(requests)} requests of ${count(report.accounts)} accounts, ${instantText(report.first_at)} to ${instantText(report.last_at)}`
  const late = report.late_rows === 0 ? '' : `, ${count(report.late_rows)} rows out of order`
  const parts = [
    facts([
      ['Trace', `${setup.trace}: ${span}${late}`],
      ['Columns', setup.columns],
      ['Policy', setup.policy],
      ['Accounts', setup.accounts],
      ['Plans', setup.plans],
      ['Estimates', setup.estimates],
      ['Durations', setup.durations],
      ['Waits', setup.waits],
      ['Time', setup.time],
      ['Store', setup.store],
    ]),
    table(
      ['OUTCOME', 'REASON', right('REQUESTS'), right('SHARE')],
      decided.map((one) => [one.outcome, one.reason, count(one.requests), share(one.requests, requests)]),
    ),
    table(
      ['SOURCE', right('CU'), right('SHARE')],
      [
        ...sources.map((one) => [one.source, cuOf(one.charged), share(Number(one.charged), charged)]),
        ['charged in all', cuOf(report.charged), ''],
        ['held and given back', cuOf(report.returned), ''],
      ],
    ),
    facts([
      [
        'Waits',
        `${count(waits.told)} told (p50 ${seconds(waits.p50_ms)}, p90 ${seconds(waits.p90_ms)}), ${count(waits.honoured)} waited for, ${count(waits.admitted)} then admitted`,
      ],
      [
        'Estimate ÷ real cost',
        `p10 ${times(estimates.p10_ratio)}, p50 ${times(estimates.p50_ratio)}, p90 ${times(estimates.p90_ratio)}; too low for ${count(estimates.too_low)} of ${count(estimates.settled)} (${share(estimates.too_low, estimates.settled)})`,
      ],
      [
        'Speed',
        `${count(speed.operations_per_s)} operations a second (${count(speed.operations)} in ${(speed.elapsed_ms / 1000).toFixed(1)} s); a decision took p50 ${ms(speed.p50_ms)}, p99 ${ms(speed.p99_ms)}`,
      ],
    ]),
  ]
  if (report.audit !== null) {
    const { entries, disagreements } = report.audit
    parts.push(
      `${bold('Audit')}  ${reportText({ accounts: report.accounts, entries, disagreements }, elapsedAuditMs)}`,
    )
  }
  return parts.join('\n\n')
}

const cuOf = (amount: string): string => cuText(Math.round(Number(amount) * 1_000_000))
const seconds = (value: number | null): string => (value === null ? '–' : `${(value / 1000).toFixed(1)} s`)
