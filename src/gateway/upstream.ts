/**
 * Speaking to upstreams. `undici` rather than `fetch`: the same authors, its pools are ours to bound, and a call costs half.
 */
import type { Readable } from 'node:stream'
import { Agent, type Dispatcher } from 'undici'
import { createSharedBreaker } from './breaker.ts'
import type { UpstreamConfig } from './config.ts'
import { decoded } from './decoded.ts'

export interface UpstreamRequest {
  /** On whose behalf: none of them alone brings it to rest. */
  readonly account: string
  readonly method: string
  /** With its query. */
  readonly path: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: Buffer | string | undefined
  readonly signal: AbortSignal
}
export interface UpstreamAnswer {
  readonly status: number
  readonly headers: Readonly<Record<string, string | readonly string[]>>
  readonly body: Readable
}

/** It could not be reached, or did not begin its answer: nothing of one has been seen. */
export class UpstreamFailed extends Error {
  override readonly name = 'UpstreamFailed'
  readonly code: 'upstream_unreachable' | 'upstream_slow' | 'upstream_resting' | 'upstream_wrong'
  constructor(code: UpstreamFailed['code'], message: string, cause?: unknown) {
    super(message, { cause })
    this.code = code
  }
}

export interface Upstream {
  readonly config: UpstreamConfig
  /** Rejects with `UpstreamFailed`, or with the signal's reason. */
  send(request: UpstreamRequest): Promise<UpstreamAnswer>
  /** How often it has failed since the start, by code; of an answer that is not well, its status. */
  readonly failures: ReadonlyMap<string, number>
  close(): Promise<void>
}

/** Header fields larger than this are refused. */
const MAX_HEADER_BYTES = 32 * 1024
const BREAKER = { failures: 10, ofOneAccount: 4, restMs: 1_000, maxRestMs: 30_000 }
/** Failures of connections that were never made: nothing that a caller says brings these about. */
const UNREACHED = [
  ...['UND_ERR_CONNECT_TIMEOUT', 'ECONNREFUSED', 'ENOTFOUND', 'EAI_AGAIN'],
  ...['EHOSTUNREACH', 'ENETUNREACH', 'EHOSTDOWN', 'ETIMEDOUT'],
]
/** Answers by which an upstream says that it is not well, rather than that the call is wrong. */
const UNWELL = new Set([500, 502, 503, 504, 529])

export const isUnwell = (status: number): boolean => UNWELL.has(status)

export function createUpstream(config: UpstreamConfig): Upstream {
  const agent = new Agent({
    connections: config.connections,
    connect: { timeout: config.connectTimeoutMs },
    headersTimeout: config.firstByteTimeoutMs,
    bodyTimeout: config.idleTimeoutMs,
    maxHeaderSize: MAX_HEADER_BYTES,
    pipelining: 1,
  })
  const breaker = createSharedBreaker({
    ...BREAKER,
    now: () => performance.now(),
    random: Math.random,
  })
  const failures = new Map<string, number>()
  const count = (code: string): void => void failures.set(code, (failures.get(code) ?? 0) + 1)
  const failed = (code: UpstreamFailed['code'], message: string, cause?: unknown): UpstreamFailed => {
    count(code)
    return new UpstreamFailed(code, message, cause)
  }
  const { origin, pathname } = new URL(config.url)
  const base = pathname.replace(/\/$/, '')
  return {
    config,
    failures,
    async send({ account, method, path, headers, body, signal }) {
      const pass = breaker.admit(account)
      if (pass === undefined)
        throw failed('upstream_resting', `${config.name} has failed of late, and is not asked now`)
      try {
        const answer = await agent.request({
          origin,
          path: `${base}${path}`,
          method: method as Dispatcher.HttpMethod,
          headers: { ...headers },
          body: body ?? null,
          signal,
        })
        if (isUnwell(answer.statusCode)) {
          pass.failed(true)
          count(String(answer.statusCode))
        } else pass.succeeded()
        return unpacked(answer)
      } catch (error) {
        if (signal.aborted) throw signal.reason
        if (error instanceof UpstreamFailed) throw error
        const { code = '' } = error as { readonly code?: string }
        pass.failed(!UNREACHED.includes(code))
        const isSlow = code === 'UND_ERR_HEADERS_TIMEOUT'
        throw isSlow
          ? failed('upstream_slow', `${config.name} did not answer in time`, error)
          : failed('upstream_unreachable', `${config.name} cannot be reached`, error)
      }
    },
    close: () => agent.destroy(),
  }
}

function unpacked({ statusCode, headers, body }: Dispatcher.ResponseData): UpstreamAnswer {
  const { 'content-encoding': encoding, ...named } = plain(headers)
  const read = decoded(body, encoding === undefined ? undefined : String(encoding))
  if (read !== undefined) return { status: statusCode, headers: named, body: read }
  body.on('error', () => {}).destroy()
  throw new UpstreamFailed(
    'upstream_wrong',
    `it packs its answers as ${encoding}, although nobody asked for it`,
  )
}

function plain(
  headers: Readonly<Record<string, string | string[] | undefined>>,
): Record<string, string | readonly string[]> {
  const all: Record<string, string | readonly string[]> = {}
  for (const [name, value] of Object.entries(headers))
    if (value !== undefined) all[name.toLowerCase()] = value
  return all
}

/**
 * How many calls may be sent a second time: a tenth of those that were sent once, so that retries never double the load on an
 * upstream that has too much already.
 */
export function createRetryBudget(share = 0.1, most = 20) {
  let saved = most
  return {
    earn: (): void => {
      saved = Math.min(most, saved + share)
    },
    spend(): boolean {
      if (saved < 1) return false
      saved -= 1
      return true
    },
  }
}
