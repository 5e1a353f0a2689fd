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
  readonly floor?: Floor
}

export const FIGURES = [
  { key: 'kernel_decisions_per_s', section: 'kernel', unit: '/s', floor: { least: 400_000 } },
  {
    key: 'embedded_pairs_per_s',
    section: 'embedded',
    unit: '/s',
    floor: { ratio: 0.6, to: 'embedded_raw_pairs_per_s' },
  },
  { key: 'embedded_raw_pairs_per_s', section: 'embedded', unit: '/s' },
  {
    key: 'embedded_hot_pairs_per_s',
    section: 'hot',
    unit: '/s',
    floor: { ratio: 0.5, to: 'embedded_hot_raw_pairs_per_s' },
  },
  { key: 'embedded_hot_raw_pairs_per_s', section: 'hot', unit: '/s' },
  { key: 'embedded_naive_pairs_per_s', section: 'embedded', unit: '/s' },
  { key: 'event_loop_delay_p99_ms', section: 'embedded', unit: 'ms', floor: { most: 10 } },
  { key: 'http_reserve_per_s', section: 'http', unit: '/s', floor: { ratio: 0.2, to: 'http_bare_per_s' } },
  {
    key: 'http_hot_reserve_per_s',
    section: 'http',
    unit: '/s',
    floor: { ratio: 0.35, to: 'http_bare_per_s' },
  },
  { key: 'http_bare_per_s', section: 'http', unit: '/s' },
  { key: 'http_batch_ops_per_s', section: 'http', unit: '/s', floor: { ratio: 2, to: 'http_reserve_per_s' } },
  { key: 'embedded_bytes_per_pair', section: 'embedded', unit: 'bytes' },
  { key: 'rlf_memory_per_s', section: 'rlf', unit: '/s' },
  { key: 'accounts_1m_ratio', section: 'accounts', unit: '', floor: { least: 0.5 } },
  { key: 'accounts_1m_rss_mb', section: 'accounts', unit: 'MB', floor: { most: 500 } },
] as const satisfies readonly Figure[]

/** One further floor: the same key against a second comparator. */
export const NAIVE_FLOOR = {
  key: 'embedded_pairs_per_s',
  ratio: 2.5,
  to: 'embedded_naive_pairs_per_s',
} as const

export function median(values: readonly number[]): number {
  const sorted = values.toSorted((a, b) => a - b)
  const middle = sorted.length >> 1
  const upper = sorted[middle] ?? Number.NaN
  return sorted.length % 2 === 1 ? upper : ((sorted[middle - 1] ?? upper) + upper) / 2
}
