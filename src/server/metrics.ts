/**
 * What `/metrics` tells, in Prometheus text format 0.0.4. One list: names, types and help stand beside what fills them,
 * and the reference page is held to it by a test.
 */
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { COMMIT_SIZE_BOUNDS, type Engine } from '../engine.ts'
import { formatMicros } from '../units.ts'

export const METRICS_TYPE = 'text/plain; version=0.0.4; charset=utf-8'

export interface Metrics {
  /** Counts one answered request. */
  observe(method: string, route: string, status: number, ms: number): void
  render(): string
  close(): void
}

/** Upper bounds of the latency histogram, in seconds. */
const LATENCY_BOUNDS = [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5] as const

interface Latency {
  readonly method: string
  readonly route: string
  readonly buckets: number[]
  readonly statuses: Map<number, number>
  seconds: number
  count: number
}

interface Sources {
  readonly engine: Engine
  readonly latencies: ReadonlyMap<string, Latency>
  readonly loop: ReturnType<typeof monitorEventLoopDelay>
}
type Labels = Readonly<Record<string, string>>
/** The name's ending (`_bucket`, `_sum`, `_count` or none), labels and value of one line. */
type Sample = readonly [ending: string, labels: Labels, value: number | string]

export interface Metric {
  readonly name: string
  readonly type: 'counter' | 'gauge' | 'histogram'
  readonly labels: readonly string[]
  readonly help: string
  readonly samples: (sources: Sources) => readonly Sample[]
}

const one = (value: number | string): readonly Sample[] => [['', {}, value]]

export const METRICS: readonly Metric[] = [
  {
    name: 'sluice_decisions_total',
    type: 'counter',
    labels: ['operation', 'outcome', 'reason'],
    help: 'Decisions by operation, outcome and reason.',
    samples: ({ engine }) =>
      [...engine.metrics.decisions].map(([key, count]) => {
        const [operation = '', outcome = '', reason = ''] = key.split(' ')
        return ['', { operation, outcome, reason }, count]
      }),
  },
  {
    name: 'sluice_charged_cu_total',
    type: 'counter',
    labels: ['source'],
    help: 'Compute units charged, by kind of source; a refund takes nothing off.',
    samples: ({ engine }) =>
      [...engine.metrics.chargedMicros].map(([source, micros]) => ['', { source }, formatMicros(micros)]),
  },
  {
    name: 'sluice_open_holds',
    type: 'gauge',
    labels: [],
    help: 'Requests that hold something now.',
    samples: ({ engine }) => one(engine.metrics.openHolds),
  },
  {
    name: 'sluice_event_streams',
    type: 'gauge',
    labels: [],
    help: 'Streams of events that are open.',
    samples: ({ engine }) => one(engine.metrics.streams),
  },
  {
    name: 'sluice_sweep_lag_seconds',
    type: 'gauge',
    labels: [],
    help: 'How long the oldest hold past its end has waited for the sweep.',
    samples: ({ engine }) => one(engine.metrics.sweepLagMs / 1000),
  },
  {
    name: 'sluice_refusals_logged_total',
    type: 'counter',
    labels: [],
    help: 'Refusals written whole to the bounded log.',
    samples: ({ engine }) => one(engine.metrics.refusalsLogged),
  },
  {
    name: 'sluice_refusals_counted_total',
    type: 'counter',
    labels: [],
    help: 'Refusals in all, whether the log keeps them whole or only counts them.',
    samples: ({ engine }) => one(engine.metrics.refusalsCounted),
  },
  {
    name: 'sluice_commit_operations',
    type: 'histogram',
    labels: [],
    help: 'Operations that shared a commit.',
    samples: ({ engine: { metrics } }) =>
      histogram(
        {},
        COMMIT_SIZE_BOUNDS,
        metrics.commits.sizeBuckets,
        metrics.commits.operations,
        metrics.commits.count,
      ),
  },
  {
    name: 'sluice_commit_entries_total',
    type: 'counter',
    labels: [],
    help: 'Journal entries written.',
    samples: ({ engine }) => one(engine.metrics.commits.entries),
  },
  {
    name: 'sluice_commit_seconds_total',
    type: 'counter',
    labels: [],
    help: 'Time spent in commits.',
    samples: ({ engine }) => one(engine.metrics.commits.durationMs / 1000),
  },
  {
    name: 'sluice_queue_depth',
    type: 'gauge',
    labels: [],
    help: 'Operations that wait for a commit.',
    samples: ({ engine }) => one(engine.health().queued),
  },
  {
    name: 'sluice_ready',
    type: 'gauge',
    labels: [],
    help: '1 where the store can be read and written, else 0.',
    samples: ({ engine }) => one(engine.health().ready ? 1 : 0),
  },
  {
    name: 'sluice_http_requests_total',
    type: 'counter',
    labels: ['method', 'route', 'status'],
    help: 'HTTP requests answered, by method, route and status.',
    samples: ({ latencies }) =>
      [...latencies.values()].flatMap(({ method, route, statuses }) =>
        [...statuses].map(
          ([status, count]): Sample => ['', { method, route, status: String(status) }, count],
        ),
      ),
  },
  {
    name: 'sluice_http_request_seconds',
    type: 'histogram',
    labels: ['method', 'route'],
    help: 'Time from the head of a request to the end of its answer, by method and route.',
    samples: ({ latencies }) =>
      [...latencies.values()].flatMap(({ method, route, buckets, seconds, count }) =>
        histogram({ method, route }, LATENCY_BOUNDS, buckets, seconds, count),
      ),
  },
  {
    name: 'sluice_event_loop_delay_seconds',
    type: 'gauge',
    labels: ['quantile'],
    help: 'Delay of the event loop since the last scrape, by quantile.',
    samples: ({ loop }) =>
      [0.5, 0.9, 0.99, 1].map((quantile) => [
        '',
        { quantile: String(quantile) },
        // Before the first tick the histogram holds nothing, and its percentiles are not numbers.
        loop.count === 0 ? 0 : loop.percentile(quantile * 100) / 1e9,
      ]),
  },
  {
    name: 'process_resident_memory_bytes',
    type: 'gauge',
    labels: [],
    help: 'Resident memory of the process.',
    samples: () => one(process.memoryUsage.rss()),
  },
  {
    name: 'process_cpu_seconds_total',
    type: 'counter',
    labels: [],
    help: 'Processor time of the process, user and system.',
    samples: () => {
      const { user, system } = process.cpuUsage()
      return one((user + system) / 1e6)
    },
  },
]

/** Lines of a histogram, from counts that each stand for their own bucket; the last may count what is above all bounds. */
function histogram(
  labels: Labels,
  bounds: readonly number[],
  buckets: readonly number[],
  sum: number,
  count: number,
): readonly Sample[] {
  let below = 0
  const lines = bounds.map((bound, i): Sample => {
    below += buckets[i] ?? 0
    return ['_bucket', { ...labels, le: String(bound) }, below]
  })
  return [
    ...lines,
    ['_bucket', { ...labels, le: '+Inf' }, count],
    ['_sum', labels, sum],
    ['_count', labels, count],
  ]
}

export function createMetrics(engine: Engine): Metrics {
  const latencies = new Map<string, Latency>()
  const loop = monitorEventLoopDelay({ resolution: 10 })
  loop.enable()
  return {
    observe(method, route, status, ms) {
      const key = `${method} ${route}`
      let latency = latencies.get(key)
      if (latency === undefined) {
        latency = { method, route, buckets: [], statuses: new Map(), seconds: 0, count: 0 }
        latencies.set(key, latency)
      }
      const seconds = ms / 1000
      const bucket = LATENCY_BOUNDS.findIndex((bound) => seconds <= bound)
      const at = bucket === -1 ? LATENCY_BOUNDS.length : bucket
      latency.buckets[at] = (latency.buckets[at] ?? 0) + 1
      latency.statuses.set(status, (latency.statuses.get(status) ?? 0) + 1)
      latency.seconds += seconds
      latency.count += 1
    },
    render() {
      const text = METRICS.map((metric) => renderMetric(metric, { engine, latencies, loop })).join('')
      loop.reset()
      return text
    },
    close: () => loop.disable(),
  }
}

function renderMetric({ name, type, help, samples }: Metric, sources: Sources): string {
  const lines = samples(sources).map(
    ([ending, labels, value]) => `${name}${ending}${renderLabels(labels)} ${value}\n`,
  )
  return `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n${lines.join('')}`
}

function renderLabels(labels: Labels): string {
  const parts = Object.entries(labels).map(([name, value]) => `${name}="${escapeLabel(value)}"`)
  return parts.length === 0 ? '' : `{${parts.join(',')}}`
}

function escapeLabel(value: string): string {
  return value.replaceAll('\\', '\\\\').replaceAll('"', '\\"').replaceAll('\n', '\\n')
}
