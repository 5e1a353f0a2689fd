/**
 * Asks about jobs that nobody asks about. Each node watches those that it made, and those that no living node watches: who watches
 * a job says so in its note for some polls ahead, and one of several that would take it is first.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Engine, RequestStanding } from '../../engine.ts'
import type { Millis } from '../../units.ts'
import type { JobsConfig } from '../config.ts'
import { type Job, type JobBooks, type JobNote, jobOf } from './books.ts'
import { drop, isWell, jsonOf, type Reach } from './reach.ts'

/** A node watches a job for so many polls ahead, and says it again when half of them are over. */
const LEASE_POLLS = 6
/** How long an upstream may take to tell of a job. */
const ASK_MS = 30_000
const AT_ONCE = 8
/** More jobs than this are left to other nodes. */
const MAX_WATCHED = 10_000
const WALK_PAGE = 200
const WALK_PAUSE_MS = 20
/** Looking for jobs that nobody watches takes no more than a twentieth of the time. */
const WALK_SHARE = 20
/** So long a job stays held while no gateway runs, as far as the plan's `max_lifetime` lets it. */
const HOLD_MS = 24 * 3_600_000

export interface Watch {
  /** A job that this node has just made. */
  add(job: Job): void
  /** Until when a note may say that this node watches. */
  leaseFrom(now: Millis): Millis
  readonly size: number
  /** Lets others have its jobs. */
  close(): Promise<void>
}

export interface WatchOptions {
  readonly engine: Engine
  readonly books: JobBooks
  readonly reach: Reach
  readonly config: JobsConfig
  readonly onFault: (error: unknown) => void
}

interface Watched {
  job: Job
  heard: Millis
  /** The hold can be moved no further. */
  isHeldAtMost: boolean
}

export function createWatch({ engine, books, reach, config, onFault }: WatchOptions): Watch {
  const { pollMs, lostAfterMs } = config
  const leaseMs = pollMs * LEASE_POLLS
  const watched = new Map<string, Watched>()
  const closing = new AbortController()
  const isClosed = (): boolean => closing.signal.aborted
  const keyOf = ({ account, request_id }: RequestStanding): string => `${account} ${request_id}`
  const put = (job: Job): void => {
    watched.set(keyOf(job.standing), { job, heard: job.note.heard, isHeldAtMost: false })
  }

  /** Finds the jobs that nobody watches, page by page and never in a hurry. */
  async function walk(): Promise<void> {
    let cursor: string | undefined
    do {
      const page = await engine.openNotes({ limit: WALK_PAGE, ...(cursor === undefined ? {} : { cursor }) })
      const now = await engine.now()
      for (const standing of page.items) {
        const job = jobOf(standing)
        if (job === undefined || watched.has(keyOf(standing)) || watched.size >= MAX_WATCHED) continue
        if (isFree(job.note, now)) put(job)
      }
      cursor = page.next ?? undefined
      if (cursor !== undefined) await rest(WALK_PAUSE_MS)
    } while (cursor !== undefined && !isClosed())
  }

  const isFree = ({ by, until, removed }: JobNote, now: Millis): boolean =>
    removed !== true && (by === books.node || until <= now)

  /** Says that this node goes on watching. False where somebody else does, or nothing is left to watch. */
  async function claim(one: Watched, now: Millis): Promise<boolean> {
    const { note } = one.job
    if (note.by === books.node && note.until - now > leaseMs / 2) return true
    const mine: JobNote = { ...note, by: books.node, until: now + leaseMs, heard: one.heard }
    const job = await books.write(one.job, mine)
    if (job === undefined || !isFree(job.note, now)) return false
    // A hold that ran out has ended as the plan says; whoever asks for the job later is charged what was made then.
    const { state } = job.standing
    if (state === 'settled' || state === 'expired_released' || state === 'expired_charged') return false
    one.job = job
    if (job.note.by !== books.node) return true
    await hold(one, now)
    return true
  }

  async function hold(one: Watched, now: Millis): Promise<void> {
    const { account, request_id, expires_at, step } = one.job.standing
    if (one.isHeldAtMost || expires_at === null || expires_at - now > HOLD_MS / 2) return
    const answer = await engine.extend(
      { account, request_id, step: step + 1, ttl_ms: HOLD_MS },
      { actor: 'gateway' },
    )
    one.isHeldAtMost = (answer.expires_at ?? 0) - now < HOLD_MS
    one.job = { ...one.job, standing: { ...one.job.standing, expires_at: answer.expires_at, step: step + 1 } }
  }

  /** Answers whether it is over. */
  async function look(one: Watched, now: Millis): Promise<boolean> {
    if (!(await claim(one, now))) return true
    const seen = await ask(one.job)
    if (seen !== undefined) {
      one.heard = now
      return books.see(one.job, seen)
    }
    if (now - one.heard < lostAfterMs) return false
    await books.lose(one.job)
    return true
  }

  async function ask({ note, standing }: Job) {
    try {
      const answer = await reach.send('GET', note, {
        account: standing.account,
        signal: AbortSignal.any([closing.signal, AbortSignal.timeout(ASK_MS)]),
      })
      if (!isWell(answer.status)) {
        drop(answer)
        return undefined
      }
      const { json } = await jsonOf(answer)
      const seen = json === undefined ? undefined : reach.jobsOf(note.upstream)?.see(json)
      return seen?.id === note.id ? seen : undefined
    } catch {
      // Where it cannot be reached it has told nothing: that is counted by time.
      return undefined
    }
  }

  async function round(): Promise<void> {
    if (watched.size === 0) return
    const now = await engine.now()
    const left = [...watched.values()]
    let failed: { readonly error: unknown } | undefined
    const worker = async (): Promise<void> => {
      for (let one = left.pop(); one !== undefined && !isClosed(); one = left.pop()) {
        try {
          if (await look(one, now)) watched.delete(keyOf(one.job.standing))
        } catch (error) {
          // The store is away, or it is a mistake of ours: it is looked at again, and one of many is told.
          failed ??= { error }
        }
      }
    }
    await Promise.all(Array.from({ length: AT_ONCE }, worker))
    if (failed !== undefined && !isClosed()) onFault(failed.error)
  }

  const rest = (ms: number): Promise<void> =>
    sleep(ms, undefined, { signal: closing.signal, ref: false }).catch(() => {})

  async function run(): Promise<void> {
    let walkAt = 0
    while (!isClosed()) {
      try {
        if (performance.now() >= walkAt) {
          const from = performance.now()
          await walk()
          walkAt = performance.now() + Math.max(leaseMs, (performance.now() - from) * WALK_SHARE)
        }
        await round()
      } catch (error) {
        if (!isClosed()) onFault(error)
      }
      // Nodes that began together do not ask together.
      await rest(pollMs * (0.8 + 0.4 * Math.random()))
    }
  }
  const running = run()

  return {
    add: put,
    leaseFrom: (now) => now + leaseMs,
    get size() {
      return watched.size
    },
    async close() {
      closing.abort()
      await running
      const mine = [...watched.values()].filter(({ job }) => job.note.by === books.node)
      const left = mine.map(({ job, heard }) => books.write(job, { ...job.note, until: 0, heard }))
      await Promise.allSettled(left)
    },
  }
}
