/** What is seen of the gateway from outside: a line in the log for each call, and what `/metrics` counts. Never a body or a key. */
import type { Logger } from 'pino'
import type { Upstream } from './upstream.ts'
import type { Waiting } from './waiting.ts'

/** What is known of a call, told as it becomes known: ids, and names of ours. */
export interface Tale {
  endpoint?: string
  key?: string
  account?: string
  /** Its id in the books. */
  request?: string
  /** Why there was no answer. */
  code?: string
  isStream?: boolean
}

export interface Watch {
  begin(): Tale
  end(tale: Tale, status: number, ms: number): void
  render(): string
}

interface Sources {
  readonly answered: ReadonlyMap<string, number>
  readonly open: ReadonlySet<Tale>
  readonly waiting: Waiting
  readonly upstreams: ReadonlyMap<string, Upstream>
}
type Sample = readonly [labels: Readonly<Record<string, string>>, value: number]

export interface GatewayMetric {
  readonly name: string
  readonly type: 'counter' | 'gauge'
  readonly labels: readonly string[]
  readonly help: string
  readonly samples: (sources: Sources) => readonly Sample[]
}

/** One list, as the server has its own (`server/metrics.ts`): the reference page is held to it. */
export const GATEWAY_METRICS: readonly GatewayMetric[] = [
  {
    name: 'sluice_gateway_calls_total',
    type: 'counter',
    labels: ['endpoint', 'status'],
    help: 'Calls that have ended, by endpoint and status; 499 where the caller left before the end.',
    samples: ({ answered }) =>
      [...answered].map(([key, count]) => {
        const end = key.lastIndexOf(' ')
        return [{ endpoint: key.slice(0, end), status: key.slice(end + 1) }, count]
      }),
  },
  {
    name: 'sluice_gateway_open_calls',
    type: 'gauge',
    labels: [],
    help: 'Calls that have not ended, streams among them.',
    samples: ({ open }) => [[{}, open.size]],
  },
  {
    name: 'sluice_gateway_open_streams',
    type: 'gauge',
    labels: [],
    help: 'Streams that have begun and not ended.',
    samples: ({ open }) => [[{}, [...open].filter(({ isStream }) => isStream === true).length]],
  },
  {
    name: 'sluice_gateway_waiting',
    type: 'gauge',
    labels: [],
    help: 'Calls that wait here instead of being refused.',
    samples: ({ waiting }) => [[{}, waiting.size]],
  },
  {
    name: 'sluice_gateway_upstream_failures_total',
    type: 'counter',
    labels: ['upstream', 'code'],
    help: 'Answers that an upstream did not begin, or that say that it is not well, by upstream and code.',
    samples: ({ upstreams }) =>
      [...upstreams].flatMap(([upstream, { failures }]) =>
        [...failures].map(([code, count]): Sample => [{ upstream, code }, count]),
      ),
  },
]

export function createWatch(
  { waiting, upstreams }: Pick<Sources, 'waiting' | 'upstreams'>,
  log: Logger | undefined,
): Watch {
  const answered = new Map<string, number>()
  const open = new Set<Tale>()
  // What a line has is named below: nothing in it has to be looked for and replaced.
  const lines = log?.child({}, { redact: [] })
  return {
    begin() {
      const tale: Tale = {}
      open.add(tale)
      return tale
    },
    end(tale, status, ms) {
      open.delete(tale)
      const { endpoint = 'none', isStream, ...ids } = tale
      const counted = `${endpoint} ${status}`
      answered.set(counted, (answered.get(counted) ?? 0) + 1)
      if (lines === undefined) return
      const line = {
        endpoint,
        ...ids,
        ...(isStream && { stream: true }),
        status,
        ms: Math.round(ms * 1_000) / 1_000,
      }
      if (status >= 500) lines.warn(line, 'answered')
      else lines.info(line, 'answered')
    },
    render() {
      const sources = { answered, open, waiting, upstreams }
      return GATEWAY_METRICS.map(({ name, help, type, samples }) =>
        [
          `# HELP ${name} ${help}\n# TYPE ${name} ${type}\n`,
          ...samples(sources).map(([labels, value]) => `${name}${labelsText(labels)} ${value}\n`),
        ].join(''),
      ).join('')
    },
  }
}

function labelsText(labels: Readonly<Record<string, string>>): string {
  const parts = Object.entries(labels).map(
    ([name, value]) => `${name}="${value.replaceAll(/[\\"]/g, '\\$&')}"`,
  )
  return parts.length === 0 ? '' : `{${parts.join(',')}}`
}
