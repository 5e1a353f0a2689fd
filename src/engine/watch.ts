/**
 * Tells whoever watches an account what happens in it. What this process writes is heard of at once; what other nodes write,
 * and the log of refusals, is looked for every second while somebody watches. Streams are pulled: all that is kept for one that
 * nobody reads is its place in the journal and a few refusals.
 */
import { SluiceError } from '../errors.ts'
import type { Shown } from '../kernel/account.ts'
import { type Key, type RequestCell, requestKey } from '../kernel/cells.ts'
import { readEntry, readPrivate, type StoredEntry } from '../ledger/entries.ts'
import type { RefusalLine } from '../store.ts'
import type { Millis } from '../units.ts'
import type { AccountEvent, DecisionAnswer, EntryView, RefusalView, Subject } from '../wire.ts'
import type { EngineMetrics, WatchOptions } from './contract.ts'
import type { Core } from './core.ts'
import * as intake from './intake.ts'
import { breathe } from './paging.ts'
import * as present from './present.ts'

export interface WatchBounds {
  /** Streams at once: 1,000. */
  readonly maxStreams?: number
  /** How often other nodes' entries and the log of refusals are looked for: every second. */
  readonly pollEveryMs?: Millis
  /** How often an account is looked at in which nothing was written, since windows reset and grants expire without: 15 s. */
  readonly lookEveryMs?: Millis
}
const DEFAULTS = { maxStreams: 1_000, pollEveryMs: 1_000, lookEveryMs: 15_000 }
/** An account under load is shown so often, and not after each of its entries. */
const SHOW_EVERY_MS = 200
/** Entries that are read at once. */
const PAGE = 100
/** Accounts that are polled at once. */
const POLL_AT_ONCE = 4
/** Refusals that are read at once, and that are kept for one stream. */
const MAX_REFUSALS = 100

export interface Watcher {
  /** `bound` is the subject that the reader stands for: it is told of nobody else. */
  watch(account: string, options: WatchOptions, bound?: Subject): AsyncIterableIterator<AccountEvent>
  /** Ends all streams. */
  close(): Promise<void>
}

/** An account that has streams. */
interface Watched {
  readonly id: string
  readonly streams: Set<Stream>
  /** The newest entry that a poll has seen. */
  polled: number
  /** What is being read for its streams: those that were woken together read once. */
  readonly reads: Map<string, Promise<unknown>>
  /** The newest refusals that the log had when it was last looked at. */
  seen: ReadonlySet<string> | undefined
}

interface Stream {
  readonly bound: Subject | undefined
  readonly events: readonly AccountEvent['event'][]
  readonly bell: Bell
  /** Refusals that it has not told. */
  refusals: RefusalLine[]
  ended: boolean
  /** Lets go of its place and its listeners, also where nobody reads it any more. */
  release(): void
}

/** An entry, and what is told of it, made when it first is. */
interface Found {
  readonly stored: StoredEntry
  view: EntryView | undefined
}

const EVENTS: readonly AccountEvent['event'][] = ['account', 'entry', 'refusal']

export function createWatcher(
  core: Core,
  metrics: EngineMetrics,
  shown: (id: string, subject: Subject) => Promise<Shown>,
  bounds: WatchBounds = {},
): Watcher {
  const { maxStreams, pollEveryMs, lookEveryMs } = { ...DEFAULTS, ...bounds }
  const { store } = core
  const accounts = new Map<string, Watched>()
  let timer: NodeJS.Timeout | undefined
  let polling: Promise<void> | undefined
  let closed = false

  function enter(id: string, stream: Stream): Watched {
    if (closed) throw new SluiceError('closing', 'the engine is closing', { remedy: 'ask another node' })
    if (metrics.streams >= maxStreams) {
      throw new SluiceError('overloaded', `this node has ${maxStreams} streams of events already`, {
        remedy: 'ask another node, or later',
        retryAfterMs: 5_000,
      })
    }
    metrics.streams++
    let watched = accounts.get(id)
    if (watched === undefined) {
      const made: Watched = { id, streams: new Set(), polled: 0, reads: new Map(), seen: undefined }
      watched = made
      accounts.set(id, made)
      core.listeners.set(id, () => wake(made))
    }
    watched.streams.add(stream)
    schedule()
    return watched
  }

  function leave({ id, streams }: Watched, stream: Stream): void {
    metrics.streams--
    streams.delete(stream)
    if (streams.size > 0) return
    accounts.delete(id)
    core.listeners.delete(id)
    if (accounts.size === 0) clearTimeout(timer)
  }

  /** The next round, a while after the last; none while nobody watches. It keeps no process alive. */
  function schedule(): void {
    if (polling !== undefined || accounts.size === 0 || closed) return
    clearTimeout(timer)
    timer = setTimeout(() => {
      polling = pollAll().finally(() => {
        polling = undefined
        schedule()
      })
    }, pollEveryMs).unref()
  }

  async function pollAll(): Promise<void> {
    const round = accounts.values()
    const one = async (): Promise<void> => {
      // What cannot be read now is looked at in the next round.
      for (const watched of round) if (!closed) await poll(watched).catch(() => {})
    }
    await Promise.all(Array.from({ length: POLL_AT_ONCE }, one))
  }

  async function poll(watched: Watched): Promise<void> {
    const { id, streams } = watched
    const [entry] = await store.entries(id, { from: watched.polled + 1, newestFirst: true, limit: 1 })
    if (entry !== undefined) {
      watched.polled = entry.seq
      wake(watched)
    }
    const curious = [...streams].filter(({ events }) => events.includes('refusal'))
    if (curious.length === 0) watched.seen = undefined
    else for (const line of await newRefusals(watched)) for (const stream of curious) keep(stream, line)
  }

  /** What the log has now and did not have when it was last looked at, oldest first; nothing at the first look. */
  async function newRefusals(watched: Watched): Promise<readonly RefusalLine[]> {
    const lines = await store.refusals(watched.id, { limit: MAX_REFUSALS })
    const { seen } = watched
    watched.seen = new Set(lines.map(nameOf))
    // Where a line is gone, erased with its person, an older one comes into sight.
    const known = lines.findIndex((line) => seen?.has(nameOf(line)))
    const fresh = known < 0 ? lines : lines.slice(0, known)
    return seen === undefined ? [] : fresh.toReversed()
  }

  function watch(
    account: string,
    options: WatchOptions,
    bound?: Subject,
  ): AsyncIterableIterator<AccountEvent> {
    const stream: Stream = {
      bound,
      events: options.events ?? EVENTS,
      bell: createBell(),
      refusals: [],
      ended: false,
      release: () => {},
    }
    const events = follow(stream, account, options)
    return {
      [Symbol.asyncIterator]() {
        return this
      },
      next: () => events.next(),
      async return() {
        // A reader that leaves while it waits for the next event does not wait for it.
        end(stream)
        return events.return(undefined)
      },
    }
  }

  async function* follow(
    stream: Stream,
    account: string,
    { after, subject, signal }: WatchOptions,
  ): AsyncGenerator<AccountEvent, undefined> {
    const id = intake.accountId(account, '/account')
    const whose = intake.subject(subject)
    if (after !== undefined && !(Number.isSafeInteger(after) && after >= 0))
      throw notAfter('not a number of an entry')
    const stop = (): void => end(stream)
    if (signal?.aborted) stop()
    if (stream.ended) return
    const watched = enter(id, stream)
    signal?.addEventListener('abort', stop, { once: true })
    stream.release = () => {
      signal?.removeEventListener('abort', stop)
      leave(watched, stream)
    }
    try {
      for await (const event of tell(watched, stream, whose, after)) {
        if (stream.ended) return
        yield event
        if (stream.ended) return
      }
    } catch (error) {
      // What fails because the engine has closed has ended.
      if (!stream.ended) throw error
    } finally {
      end(stream)
    }
  }

  /** Goes on for ever; whoever reads it ends it. */
  async function* tell(
    watched: Watched,
    stream: Stream,
    subject: Subject,
    after: number | undefined,
  ): AsyncGenerator<AccountEvent, undefined> {
    const { id } = watched
    const { bound, events, bell } = stream
    const viewOf = async () => {
      const view = present.accountView(await shown(id, subject), bound)
      return { view, text: JSON.stringify(view) }
    }
    // Not one that somebody began to look at who had been told less.
    const view = (told: number) => once(watched, `account ${JSON.stringify([told, subject, bound])}`, viewOf)
    // Before the account is shown, so that what is shown has in it all that will not be told.
    const [newest] = await store.entries(id, { newestFirst: true, limit: 1 })
    const last = newest?.seq ?? 0
    let seen = await view(last)
    if (after !== undefined && after > last) throw notAfter(`the newest entry of ${id} is ${last}`)
    if (events.includes('refusal') && watched.seen === undefined) await newRefusals(watched)
    let seq = after ?? last
    let seenAt = performance.now()
    let isStale = false
    yield { event: 'account', seq, account: seen.view }
    while (!stream.ended) {
      const page = await pageAfter(watched, seq, events.includes('entry'))
      const isOwn = await ownOf(id, page, bound)
      for (const found of page) {
        seq = found.stored.seq
        if (!events.includes('entry') || !isOwn(found.stored)) continue
        found.view ??= present.entryView(id, found.stored)
        yield { event: 'entry', seq, entry: found.view }
      }
      isStale ||= page.length > 0
      for (const line of stream.refusals.splice(0))
        yield { event: 'refusal', seq, refusal: refusalView(line) }
      const dueAt = !events.includes('account')
        ? Number.POSITIVE_INFINITY
        : isStale
          ? nextShow(seenAt)
          : seenAt + lookEveryMs
      if (performance.now() >= dueAt) {
        const before = seen.text
        seen = await view(seq)
        seenAt = performance.now()
        // One that is bound is not told that something happened which changed nothing of what it sees.
        if ((isStale && bound === undefined) || seen.text !== before)
          yield { event: 'account', seq, account: seen.view }
        isStale = false
      } else if (page.length < PAGE) await bell.wait(dueAt - performance.now())
      else await breathe()
    }
  }

  /** The next entries; the newest alone, where they are not told. */
  function pageAfter(watched: Watched, seq: number, areTold: boolean): Promise<readonly Found[]> {
    const from = seq + 1
    const query = areTold ? { from, limit: PAGE } : { from, newestFirst: true, limit: 1 }
    return once(watched, `entries ${areTold} ${from}`, async () =>
      (await store.entries(watched.id, query)).map((stored) => ({ stored, view: undefined })),
    )
  }

  /**
   * Which entries of a page are a bound reader's: those that name its subject, and those of its requests, as charges and transfers
   * name nobody themselves. What was erased, or belongs to the whole account, is not.
   */
  async function ownOf(
    id: string,
    page: readonly Found[],
    bound: Subject | undefined,
  ): Promise<(stored: StoredEntry) => boolean> {
    if (bound === undefined || page.length === 0) return () => true
    const keyOf = (stored: StoredEntry): Key | undefined => {
      const entry = readEntry(stored)
      return entry.private === undefined && entry.request !== undefined
        ? requestKey(entry.request)
        : undefined
    }
    const keys = [...new Set(page.map(({ stored }) => keyOf(stored)).filter((key) => key !== undefined))]
    const requests = new Map<Key, RequestCell | null>()
    if (keys.length > 0) {
      const found = await core.run(id, keys, (cells) => ({
        result: { ok: keys.map((key) => (cells.get(key) ?? null) as RequestCell | null) },
        writes: [],
        entries: [],
      }))
      for (const [i, key] of keys.entries()) requests.set(key, found[i] ?? null)
    }
    return (stored) => {
      const key = keyOf(stored)
      return has((key === undefined ? readPrivate(stored) : requests.get(key))?.subject ?? {}, bound)
    }
  }

  return {
    watch,
    async close() {
      closed = true
      clearTimeout(timer)
      for (const { streams } of accounts.values()) for (const stream of streams) end(stream)
      await polling
    },
  }
}

/**
 * One read for all streams of an account that want the same in the same turn of the loop: with 100 of them, decoding each entry
 * for each let a busy account decide a sixteenth of what it does alone; read once, a third to a half.
 */
function once<T>({ reads }: Watched, what: string, read: () => Promise<T>): Promise<T> {
  const known = reads.get(what)
  if (known !== undefined) return known as Promise<T>
  const made = read().finally(() =>
    setImmediate(() => {
      if (reads.get(what) === made) reads.delete(what)
    }),
  )
  reads.set(what, made)
  return made
}

/** What was on its way before may lack what they are woken for. */
function wake({ streams, reads }: Watched): void {
  reads.clear()
  for (const { bell } of streams) bell.ring()
}

/** All streams of an account at the same instants, so that it is looked at once for them. */
const nextShow = (seenAt: number): number =>
  Math.ceil((seenAt + SHOW_EVERY_MS / 2) / SHOW_EVERY_MS) * SHOW_EVERY_MS

function end(stream: Stream): void {
  if (stream.ended) return
  stream.ended = true
  stream.release()
  stream.bell.ring()
}

/** The log is a help and no journal: a stream that nobody reads keeps the newest. */
function keep(stream: Stream, line: RefusalLine): void {
  if (stream.bound !== undefined && !has(line.subject, stream.bound)) return
  stream.refusals = [...stream.refusals, line].slice(-MAX_REFUSALS)
  stream.bell.ring()
}

const nameOf = ({ at, reason, count, requestId, subject }: RefusalLine): string =>
  JSON.stringify([at, reason, count, requestId, subject])

/** Whether a subject has all that a reader is bound to. */
const has = (subject: Subject, bound: Subject): boolean =>
  Object.entries(bound).every(
    ([dimension, value]) => Object.hasOwn(subject, dimension) && subject[dimension] === value,
  )

function refusalView({ at, reason, count, subject, answer }: RefusalLine): RefusalView {
  const told = JSON.parse(answer) as { readonly feature: string; readonly answer: DecisionAnswer }
  return { at, reason, count, feature: told.feature, subject, answer: told.answer }
}

function notAfter(why: string): SluiceError {
  return new SluiceError('invalid', `/after: ${why}`, {
    path: '/after',
    remedy: 'send the `seq` of an event, or nothing to begin with what comes now',
  })
}

interface Bell {
  ring(): void
  /** Until it rings, or the time is over; not at all where it has rung since the last wait. */
  wait(ms: Millis): Promise<void>
}

function createBell(): Bell {
  let hasRung = false
  let answer: (() => void) | undefined
  return {
    ring() {
      hasRung = true
      answer?.()
    },
    async wait(ms) {
      if (!hasRung) {
        await new Promise<void>((resolve) => {
          answer = resolve
          const timer = Number.isFinite(ms) ? setTimeout(resolve, ms).unref() : undefined
          answer = () => {
            clearTimeout(timer)
            resolve()
          }
        })
      }
      answer = undefined
      hasRung = false
    },
  }
}
