/** Every figure: its key, its unit, and what it must reach. The README tells the same; a test holds the two together. */

export type Key = (typeof FIGURES)[number]['key']
export type Figures = Readonly<Partial<Record<Key, number>>>

/** What a figure is held against: a bound of its own, or its ratio to another, both of one turn. */
export type Floor =
  | { readonly least: number }
  | { readonly most: number }
  | { readonly ratio: number; readonly to: string }

interface Figure {
  readonly key: string
  readonly section: string
  readonly unit: string
  readonly floors?: readonly Floor[]
}

export const FIGURES = [
  { key: 'kernel_decisions_per_s', section: 'kernel', unit: '/s', floors: [{ least: 400_000 }] },
  {
    key: 'embedded_pairs_per_s',
    section: 'embedded',
    unit: '/s',
    floors: [
      { ratio: 0.6, to: 'embedded_raw_pairs_per_s' },
      { ratio: 2.5, to: 'embedded_naive_pairs_per_s' },
    ],
  },
  { key: 'embedded_raw_pairs_per_s', section: 'embedded', unit: '/s' },
  {
    key: 'embedded_hot_pairs_per_s',
    section: 'hot',
    unit: '/s',
    floors: [{ ratio: 0.5, to: 'embedded_hot_raw_pairs_per_s' }],
  },
  { key: 'embedded_hot_raw_pairs_per_s', section: 'hot', unit: '/s' },
  { key: 'embedded_naive_pairs_per_s', section: 'embedded', unit: '/s' },
  { key: 'event_loop_delay_p99_ms', section: 'embedded', unit: 'ms', floors: [{ most: 10 }] },
  { key: 'http_reserve_per_s', section: 'http', unit: '/s', floors: [{ ratio: 0.2, to: 'http_bare_per_s' }] },
  {
    key: 'http_hot_reserve_per_s',
    section: 'http',
    unit: '/s',
    floors: [{ ratio: 0.35, to: 'http_bare_per_s' }],
  },
  { key: 'http_bare_per_s', section: 'http', unit: '/s' },
  {
    key: 'http_batch_ops_per_s',
    section: 'http',
    unit: '/s',
    floors: [{ ratio: 2, to: 'http_reserve_per_s' }],
  },
  {
    key: 'client_together_per_s',
    section: 'client',
    unit: '/s',
    floors: [{ ratio: 4, to: 'client_single_per_s' }],
  },
  { key: 'client_single_per_s', section: 'client', unit: '/s' },
  { key: 'gateway_added_p50_ms', section: 'gateway', unit: 'ms', floors: [{ most: 1 }] },
  { key: 'gateway_added_p99_ms', section: 'gateway', unit: 'ms', floors: [{ most: 5 }] },
  { key: 'gateway_first_token_ms', section: 'gateway', unit: 'ms', floors: [{ most: 2 }] },
  { key: 'gateway_stream_bytes', section: 'gateway', unit: 'bytes' },
  { key: 'embedded_bytes_per_pair', section: 'embedded', unit: 'bytes' },
  { key: 'rlf_memory_per_s', section: 'rlf', unit: '/s' },
  { key: 'accounts_1m_ratio', section: 'accounts', unit: '', floors: [{ least: 0.5 }] },
  { key: 'accounts_1m_rss_mb', section: 'accounts', unit: 'MB', floors: [{ most: 500 }] },
  {
    key: 'pg_pairs_per_s',
    section: 'postgres',
    unit: '/s',
    floors: [
      { least: 3_000 },
      { ratio: 0.6, to: 'pg_raw_pairs_per_s' },
      { ratio: 3, to: 'pg_naive_pairs_per_s' },
      // A pair is two operations.
      { ratio: 0.5, to: 'rlf_pg_per_s' },
    ],
  },
  { key: 'pg_raw_pairs_per_s', section: 'postgres', unit: '/s' },
  {
    key: 'pg_hot_pairs_per_s',
    section: 'postgres',
    unit: '/s',
    floors: [{ least: 4_000 }, { ratio: 0.5, to: 'pg_hot_raw_pairs_per_s' }],
  },
  { key: 'pg_hot_raw_pairs_per_s', section: 'postgres', unit: '/s' },
  { key: 'pg_naive_pairs_per_s', section: 'postgres', unit: '/s' },
  { key: 'pg_mixed_cold_p99_ratio', section: 'postgres', unit: '', floors: [{ most: 2 }] },
  { key: 'pg_open_loop_p50_ms', section: 'postgres', unit: 'ms', floors: [{ most: 6 }] },
  { key: 'pg_open_loop_p99_ms', section: 'postgres', unit: 'ms', floors: [{ most: 30 }] },
  { key: 'rlf_pg_per_s', section: 'postgres', unit: '/s' },
  { key: 'pg_bytes_per_pair', section: 'postgres', unit: 'bytes' },
  { key: 'pg_usage_query_ms', section: 'postgres', unit: 'ms', floors: [{ most: 50 }] },
  { key: 'pg_audit_entries_per_s', section: 'postgres', unit: '/s', floors: [{ least: 50_000 }] },
] as const satisfies readonly Figure[]

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? upper) + upper) / 2
}
