/** What an upstream tells of a job when it is asked. */
import type { Jobs, Json } from '../provider.ts'
import { type Upstream, type UpstreamAnswer, UpstreamFailed } from '../upstream.ts'
import type { JobNote } from './books.ts'

/** What is told of a job is short; beyond this it is not read. */
const MAX_TOLD_BYTES = 4 * 1024 * 1024

export interface ToldJson {
  readonly status: number
  readonly headers: UpstreamAnswer['headers']
  /** Undefined where it is no JSON object. */
  readonly json: Json | undefined
}

export interface Reach {
  /** Asks where the job is. `more` stands behind its path: `/content?variant=thumbnail`. Rejects with `UpstreamFailed`. */
  send(
    method: 'GET' | 'DELETE',
    note: Pick<JobNote, 'upstream' | 'id'>,
    options: {
      /** Whose it is. */
      readonly account: string
      readonly signal: AbortSignal
      readonly more?: string
      readonly headers?: Readonly<Record<string, string>>
    },
  ): Promise<UpstreamAnswer>
  /** How jobs are told there; undefined where there is no such upstream any more. */
  jobsOf(upstream: string): Jobs | undefined
}

export function createReach(upstreams: ReadonlyMap<string, Upstream>): Reach {
  const jobsOf = (name: string) => upstreams.get(name)?.config.provider.jobs
  return {
    jobsOf,
    async send(method, { upstream: name, id }, { account, signal, more = '', headers = {} }) {
      const upstream = upstreams.get(name)
      const jobs = jobsOf(name)
      if (upstream === undefined || jobs === undefined)
        throw new UpstreamFailed('upstream_unreachable', `there is no upstream ${name} any more`)
      const { key, provider } = upstream.config
      return upstream.send({
        account,
        method,
        path: `${jobs.path}/${encodeURIComponent(id)}${more}`,
        headers: {
          accept: 'application/json',
          ...headers,
          ...(key !== undefined && provider.authorize(key)),
        },
        body: undefined,
        signal,
      })
    },
  }
}

export async function jsonOf(answer: UpstreamAnswer): Promise<ToldJson> {
  const { status, headers, body } = answer
  const pieces: Buffer[] = []
  let size = 0
  for await (const piece of body) {
    size += (piece as Buffer).length
    // Leaving the loop lets go of the connection.
    if (size > MAX_TOLD_BYTES) return { status, headers, json: undefined }
    pieces.push(piece as Buffer)
  }
  let value: unknown
  try {
    value = JSON.parse(Buffer.concat(pieces).toString('utf8'))
  } catch {}
  const isObject = typeof value === 'object' && value !== null && !Array.isArray(value)
  return { status, headers, json: isObject ? (value as Json) : undefined }
}

export function drop(answer: UpstreamAnswer): void {
  answer.body.on('error', () => {}).destroy()
}

export const isWell = (status: number): boolean => status >= 200 && status < 300
