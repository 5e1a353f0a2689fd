/** One exchange with the server: a deadline, safe retries with jitter, errors with a code. Standard `fetch` alone. */
import type { Breaker } from './breaker.ts'
import { isUnavailable, neverSent, problemFrom, SluiceError, unavailable } from './error.ts'

/** How one call is made. */
export interface CallOptions {
  /** Milliseconds in which the call is answered, retries included. */
  readonly deadlineMs?: number | undefined
  /** Gives up waiting. What was sent may have been done all the same. */
  readonly signal?: AbortSignal | undefined
}

export interface Transport {
  /** Answers the body. Rejects with `SluiceError`, or with the signal's reason. */
  send(method: string, path: string, body?: unknown, options?: CallOptions): Promise<unknown>
}

export interface TransportOptions {
  readonly url: string
  readonly key: string
  readonly fetch: typeof globalThis.fetch
  readonly deadlineMs: number
  readonly breaker: Breaker
  readonly random: () => number
}

/** Between two attempts, in milliseconds: somewhere below the first, then below twice that, and so on. */
const FIRST_PAUSE_MS = 20
const MAX_PAUSE_MS = 1_000
/** Timers of more run off at once. */
export const MAX_TIMER_MS = 2 ** 31 - 1

export function createTransport(options: TransportOptions): Transport {
  const { key, breaker, random } = options
  const base = options.url.replace(/\/+$/, '')

  async function attempt(
    method: string,
    path: string,
    body: unknown,
    leftMs: number,
    signal: AbortSignal | undefined,
  ): Promise<unknown> {
    const controller = new AbortController()
    const timer = setTimeout(
      () => controller.abort(unavailable('Sluice did not answer in time')),
      Math.min(leftMs, MAX_TIMER_MS),
    )
    const abort = (): void => controller.abort(signal?.reason)
    signal?.addEventListener('abort', abort, { once: true })
    try {
      const response = await options.fetch(`${base}${path}`, {
        method,
        headers: {
          authorization: `Bearer ${key}`,
          ...(body !== undefined && { 'content-type': 'application/json' }),
        },
        ...(body !== undefined && { body: JSON.stringify(body) }),
        signal: controller.signal,
      })
      const text = await response.text()
      const read = parse(text)
      if (!response.ok) throw problemFrom(response.status, read)
      if (read === undefined && text !== '')
        throw unavailable('what answered is not Sluice: its answer is not JSON')
      return read
    } catch (error) {
      if (error instanceof SluiceError) throw error
      if (signal?.aborted) throw signal.reason
      if (controller.signal.aborted) throw controller.signal.reason
      throw unavailable(`Sluice cannot be reached at ${base}`, error)
    } finally {
      clearTimeout(timer)
      signal?.removeEventListener('abort', abort)
    }
  }

  return {
    async send(method, path, body, { deadlineMs = options.deadlineMs, signal } = {}) {
      signal?.throwIfAborted()
      const until = performance.now() + deadlineMs
      for (let tries = 0; ; tries++) {
        if (!breaker.admits()) {
          const error = unavailable(
            'Sluice has not answered of late, and is not asked now',
            undefined,
            breaker.restMs,
          )
          throw tries === 0 ? neverSent(error) : error
        }
        try {
          const answer = await attempt(method, path, body, until - performance.now(), signal)
          breaker.succeeded()
          return answer
        } catch (error) {
          if (!isUnavailable(error)) {
            // It answered, if only that this is wrong; whoever gave up has learnt nothing.
            if (error instanceof SluiceError) breaker.succeeded()
            throw error
          }
          // One that has too much to do is there, and would have more to do.
          if (error.code !== 'overloaded') breaker.failed()
          const pause = Math.max(
            error.retryAfterMs ?? 0,
            Math.min(MAX_PAUSE_MS, FIRST_PAUSE_MS * 2 ** tries) * random(),
          )
          if (performance.now() + pause >= until) throw error
          await sleep(pause, signal)
        }
      }
    },
  }
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text)
  } catch {
    return undefined
  }
}

/** Waits for what never rejects, at most so long; answers whether it has come. */
export async function within(awaited: Promise<unknown>, ms: number): Promise<boolean> {
  let timer: ReturnType<typeof setTimeout> | undefined
  const late = new Promise<false>((resolve) => {
    timer = setTimeout(() => resolve(false), Math.min(Math.max(0, ms), MAX_TIMER_MS))
  })
  const came = await Promise.race([awaited.then(() => true), late])
  clearTimeout(timer)
  return came
}

export function sleep(ms: number, signal?: AbortSignal): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = (): void => {
      clearTimeout(timer)
      signal?.removeEventListener('abort', end)
      if (signal?.aborted) reject(signal.reason)
      else resolve()
    }
    const timer = setTimeout(end, ms)
    signal?.addEventListener('abort', end, { once: true })
    if (signal?.aborted) end()
  })
}
