/**
 * What the gateway knows of a job, and how its hold ends. A job is a request whose id is the job's; where it runs stands in the
 * request's note, so that every node on the same store knows it, also after a restart.
 */
import { hash, randomBytes, randomUUID } from 'node:crypto'
import { setTimeout as sleep } from 'node:timers/promises'
import type { Caller, Engine, RequestStanding } from '../../engine.ts'
import { SluiceError } from '../../errors.ts'
import type { Millis } from '../../units.ts'
import type { Quantities, Subject } from '../../wire.ts'
import type { JobsConfig } from '../config.ts'
import type { JobSeen } from '../provider.ts'

export interface JobNote {
  readonly upstream: string
  /** As that upstream calls it. */
  readonly id: string
  /** The job that it was made from. */
  readonly source?: string
  readonly asked: Quantities
  /** It is charged so, whatever is told. */
  readonly isToldInAll?: true
  /** What the whole order said, hashed, where the caller has a key for it. */
  readonly order?: string
  /** Which node asks the upstream about it, and until when, unless it says so again. */
  readonly by: string
  readonly until: Millis
  /** When the upstream last told of it. */
  readonly heard: Millis
  /** Its owner has deleted it. */
  readonly removed?: true
}
export interface Job {
  readonly standing: RequestStanding
  readonly note: JobNote
}

/** Ends are told by the gateway, whoever's poll brought them: told twice they have to be the same. */
const GATEWAY: Caller = { actor: 'gateway' }
/** What is charged is reported under this name. */
const ENDPOINT = 'videos'
const PAUSES_MS = [20, 100, 500, 2_000, 5_000]

/** What is noted of a job when it has been ordered. */
export type NewJob = Omit<JobNote, 'by' | 'until' | 'heard' | 'removed'>

export interface JobBooks {
  /** This node's name, for notes. */
  readonly node: string
  /** The account's job of that id, where whoever asks may know it. */
  find(account: string, id: string, subject: Subject | undefined): Promise<Job | undefined>
  isOwn(job: Job, subject: Subject | undefined): boolean
  /** Notes where a job is that has been ordered, unless that is noted already; answers what stands. */
  begin(account: string, id: string, made: NewJob, leaseFrom: (now: Millis) => Millis): Promise<Job>
  /** Writes a note where `job` still stands as it was read; answers how it stands, whoever was first. */
  write(job: Job, note: JobNote): Promise<Job | undefined>
  /** Ends the hold where the upstream says that the work has ended; answers whether it has. */
  see(job: Job, seen: JobSeen): Promise<boolean>
  /** The upstream has told nothing of it for too long. */
  lose(job: Job): Promise<void>
  /** The caller has taken it back before it was done. */
  cancel(job: Job): Promise<void>
}

export interface JobBooksOptions {
  readonly engine: Engine
  readonly config: JobsConfig
  readonly onFault: (error: unknown) => void
  /** Told of each account that a hold was given back to, or settled. */
  readonly onEnded: (account: string) => void
}

export function createJobBooks({ engine, config, onFault, onEnded }: JobBooksOptions): JobBooks {
  const node = randomUUID().slice(0, 8)

  async function settle({ standing, note }: Job, seen: JobSeen | undefined): Promise<void> {
    const { account, request_id, attributes } = standing
    const answer = await engine.settle(
      {
        request_id,
        account,
        usage: { ...note.asked, ...(note.isToldInAll ? {} : seen?.quantities) },
        attributes: { ...attributes, ...seen?.attributes },
        // An end that nobody told is not to be taken for one that was.
        endpoint: seen === undefined ? `${ENDPOINT}.lost` : ENDPOINT,
      },
      GATEWAY,
    )
    if (answer.unpriced !== undefined)
      onFault(
        new Error(`${request_id} of ${account} made what no price is for: ${answer.unpriced.join(', ')}`),
      )
  }

  async function giveBack({ standing }: Job, reason: string): Promise<void> {
    const { account, request_id } = standing
    const { state } = await engine.release({ request_id, account, reason }, GATEWAY)
    // It was charged when the hold ran out: what was not made costs nothing.
    if (state === 'expired_charged')
      await engine.settle({ request_id, account, cost: '0', endpoint: ENDPOINT }, GATEWAY)
  }

  /** Several may see the same end: the first has told it. */
  async function end({ standing }: Job, tell: () => Promise<void>): Promise<void> {
    try {
      await tell()
    } catch (error) {
      if (!(error instanceof SluiceError && error.code === 'conflict')) throw error
    }
    onEnded(standing.account)
  }

  const write: JobBooks['write'] = async ({ standing }, note) => {
    const { account, request_id, note: before } = standing
    return jobOf(await engine.note(account, request_id, JSON.stringify(note), before))
  }

  return {
    node,
    async find(account, id, subject = {}) {
      const standing = await engine.request(account, id)
      const job = standing === undefined ? undefined : jobOf(standing)
      return job === undefined || job.note.removed === true || !isOwn(job, subject) ? undefined : job
    },
    isOwn,
    async begin(account, id, made, leaseFrom) {
      const now = await engine.now()
      const note: JobNote = { ...made, by: node, until: leaseFrom(now), heard: now }
      const job = jobOf(await engine.note(account, id, JSON.stringify(note), undefined))
      if (job === undefined)
        throw new SluiceError('internal', `the note on ${id} of ${account} cannot be read`)
      return job
    },
    write,
    async see(job, seen) {
      if (seen.state === 'runs') return false
      if (job.standing.state === 'settled') return true
      // What was made is charged, also where its hold ran out, was lost or was given back before: a gift is a refund.
      await end(job, () =>
        seen.state === 'done'
          ? settle(job, seen)
          : giveBack(job, `the upstream says: ${seen.reason}`.slice(0, 256)),
      )
      return true
    },
    lose: (job) =>
      end(job, () =>
        config.onLost === 'charge'
          ? settle(job, undefined)
          : giveBack(job, `nothing more was heard of it: ${job.note.upstream} ${job.note.id}`.slice(0, 256)),
      ),
    cancel: (job) => end(job, () => giveBack(job, 'deleted before it was done')),
  }
}

export function jobOf(standing: RequestStanding): Job | undefined {
  if (standing.note === undefined) return undefined
  try {
    return { standing, note: JSON.parse(standing.note) as JobNote }
  } catch {
    return undefined
  }
}

/** A key that stands for one subject knows that subject's jobs alone. */
const isOwn = ({ standing }: Job, subject: Subject = {}): boolean =>
  Object.entries(subject).every(([name, value]) => standing.subject[name] === value)

export const digest = (text: string): string => hash('sha256', text)

/** Jobs of one account stand together in the order of ids, since these begin alike. */
export const jobsPrefix = (prefix: string, account: string): string =>
  `${prefix}${digest(`account\n${account}`).slice(0, 8)}`

/** Unguessable; where the caller names its order by a key, the same for the same key. */
export function jobId(
  start: string,
  key: { readonly text: string; readonly attempt: number } | undefined,
): string {
  const rest =
    key === undefined ? randomBytes(20).toString('hex') : digest(`${key.text}\n${key.attempt}`).slice(0, 40)
  return `${start}${rest}`
}

/** Tries again for some seconds what the store could not take. */
export async function persist<T>(what: () => Promise<T>): Promise<T> {
  for (const pause of PAUSES_MS) {
    try {
      return await what()
    } catch (error) {
      const isAway =
        error instanceof SluiceError && ['unavailable', 'overloaded', 'clock_suspect'].includes(error.code)
      if (!isAway) throw error
      await sleep(pause, undefined, { ref: false })
    }
  }
  return what()
}
