/** What happens in an account, as it happens: a stream of events that comes back by itself, and goes on where it was. */
import type { AccountEvent, Subject } from '../src/wire.ts'
import { isUnavailable, problemFrom, SluiceError, unavailable } from './error.ts'
import { createFrameReader, type FrameReader } from './frames.ts'
import { sleep } from './transport.ts'

/** What of an account is told, and from where on. */
export interface WatchOptions {
  /** Whose windows are shown beside the account's own. */
  readonly subject?: Subject | undefined
  /** The `seq` of the last event that was read: entries after it are told. Absent: those that are written from now on. */
  readonly after?: number | undefined
  /** Which kinds: all. */
  readonly events?: readonly AccountEvent['event'][] | undefined
  /** Ends the stream. */
  readonly signal?: AbortSignal | undefined
}

export interface Watches {
  watch(account: string, options?: WatchOptions): AsyncIterable<AccountEvent>
  /** Ends all of them. */
  close(): void
}

export interface WatchesOptions {
  readonly url: string
  readonly key: string
  readonly fetch: typeof globalThis.fetch
  /** How long it may take until a connection stands. */
  readonly deadlineMs: number
  readonly random: () => number
  /** After how long without a sign of life a connection is given up: 45 s. */
  readonly silentMs?: number
}

/** A server shows every 15 s that it lives. */
const SILENT_MS = 45_000
/** Unless the server says otherwise; twice as long after each that failed. */
const RETRY_MS = 1_000
const MAX_RETRY_MS = 10_000

export function createWatches(given: WatchesOptions): Watches {
  const { url, key, fetch, deadlineMs, random, silentMs = SILENT_MS } = given
  const base = url.replace(/\/+$/, '')
  /** What ends each that is open. */
  const open = new Set<() => void>()
  let closed = false

  /** The bytes of one connection, and what ends it. */
  async function connect(path: string, after: number | undefined, connection: AbortController) {
    const late = setTimeout(() => connection.abort(unavailable('Sluice did not answer in time')), deadlineMs)
    try {
      const response = await fetch(`${base}${path}`, {
        headers: {
          authorization: `Bearer ${key}`,
          accept: 'text/event-stream',
          ...(after !== undefined && { 'last-event-id': String(after) }),
        },
        signal: connection.signal,
      })
      if (!response.ok) throw problemFrom(response.status, await response.json().catch(() => undefined))
      const type = response.headers.get('content-type') ?? ''
      if (!type.startsWith('text/event-stream') || response.body === null)
        throw unavailable('what answered is not Sluice: its answer is not a stream of events')
      return response.body.getReader()
    } finally {
      clearTimeout(late)
    }
  }

  /** What one connection tells, until it ends. It has ended as well where nothing came for long, not even a sign of life. */
  async function* told(
    reader: ReadableStreamDefaultReader<Uint8Array>,
    frames: FrameReader,
    connection: AbortController,
  ): AsyncGenerator<AccountEvent, undefined> {
    for (;;) {
      const silent = setTimeout(() => connection.abort(unavailable('Sluice has fallen silent')), silentMs)
      const { done, value } = await reader.read().finally(() => clearTimeout(silent))
      if (done) return
      for (const { data } of frames.read(value)) yield JSON.parse(data) as AccountEvent
    }
  }

  async function* follow(
    account: string,
    { subject, after, events }: WatchOptions,
    ending: AbortSignal,
  ): AsyncGenerator<AccountEvent, undefined> {
    const query = String(new URLSearchParams({ ...subject, ...(events && { events: events.join(',') }) }))
    const path = `/v1/accounts/${encodeURIComponent(account)}/events${query && `?${query}`}`
    let seq = after
    let retryMs = RETRY_MS
    for (let failures = 0; !ending.aborted; ) {
      const connection = new AbortController()
      const abort = (): void => connection.abort(ending.reason)
      ending.addEventListener('abort', abort, { once: true })
      const frames = createFrameReader()
      let least = 0
      try {
        for await (const event of told(await connect(path, seq, connection), frames, connection)) {
          if (ending.aborted) return
          failures = 0
          seq = event.seq
          yield event
        }
      } catch (error) {
        if (ending.aborted) return
        const isRefused = error instanceof SluiceError && error.status >= 400 && error.status < 500
        if (isRefused && !isUnavailable(error)) throw error
        if (error instanceof SluiceError) least = error.retryAfterMs ?? 0
        failures++
      } finally {
        ending.removeEventListener('abort', abort)
        connection.abort()
      }
      // Where it stood before anything happened, so that nothing is missed that happens until it is back.
      if (frames.id !== undefined) seq = Number(frames.id)
      retryMs = frames.retryMs ?? retryMs
      const most = Math.max(retryMs, Math.min(MAX_RETRY_MS, retryMs * 2 ** failures))
      await sleep(Math.max(least, most * random()), ending).catch(() => {})
    }
  }

  return {
    watch(account, options = {}) {
      const ending = new AbortController()
      const { signal } = options
      const end = (): void => {
        signal?.removeEventListener('abort', end)
        open.delete(end)
        ending.abort()
      }
      const events = follow(account, options, ending.signal)
      let isOpen = false
      return {
        [Symbol.asyncIterator]: () => ({
          async next() {
            if (!isOpen) {
              isOpen = true
              open.add(end)
              signal?.addEventListener('abort', end, { once: true })
              if (closed || signal?.aborted) end()
            }
            try {
              const told = await events.next()
              if (told.done) end()
              return told
            } catch (error) {
              end()
              throw error
            }
          },
          // Whoever leaves while the next event is awaited does not wait for it.
          async return() {
            end()
            return events.return(undefined)
          },
        }),
      }
    },
    close() {
      closed = true
      for (const end of open) end()
    },
  }
}
