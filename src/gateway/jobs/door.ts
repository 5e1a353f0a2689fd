/**
 * Calls about jobs: who asks for one, and what is told of it. A job is known to the account that pays for it and, where the key stands
 * for a subject, to that subject alone; to everybody else there is none.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { pipeline } from 'node:stream/promises'
import type { Engine } from '../../engine.ts'
import { SluiceError } from '../../errors.ts'
import type { Subject } from '../../wire.ts'
import type { GatewayConfig, PlanConfig } from '../config.ts'
import { badRequest, badUpstream, type Told, unknownVideo as unknown } from '../failures.ts'
import { forCaller, forUpstream } from '../headers.ts'
import type { KeptCall } from '../kept.ts'
import type { Endpoint, JobCall, Jobs, Json } from '../provider.ts'
import type { Upstream } from '../upstream.ts'
import type { Waiting } from '../waiting.ts'
import { createJobBooks, type Job, jobOf, jobsPrefix } from './books.ts'
import { answerJson, createOrders } from './orders.ts'
import { createReach, drop, isWell, jsonOf } from './reach.ts'
import { createWatch } from './watch.ts'

export interface JobRequest {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly url: URL
  readonly account: string
  readonly subject: Subject | undefined
  /** The key's id. */
  readonly actor: string
  readonly plan: PlanConfig
  readonly endpoint: Endpoint
  readonly jobs: Jobs
  /** Where the call may name what else is stored. */
  readonly kept: KeptCall | undefined
  readonly gone: AbortSignal
}

export interface JobDoor {
  /** Answers what went wrong before anything was sent to the caller. */
  handle(call: JobRequest, what: JobCall): Promise<Told | undefined>
  /** Jobs that this node asks about. */
  readonly watched: number
  /** Waits no longer for upstreams that have not taken their orders. */
  abort(): void
  close(): Promise<void>
}

export interface JobDoorOptions {
  readonly engine: Engine
  readonly config: GatewayConfig
  readonly upstreams: ReadonlyMap<string, Upstream>
  readonly waiting: Waiting
  readonly onFault: (error: unknown) => void
}

const LIST_PAGE = 500
/** Of an account with more jobs than this within the horizon, the list shows these. */
const MAX_LISTED = 10_000
const LISTED_AT_ONCE = 8
const MAX_LIMIT = 100
const USUAL_LIMIT = 20

export function createJobDoor(given: JobDoorOptions): JobDoor {
  const { engine, config, upstreams, waiting, onFault } = given
  const books = createJobBooks({ engine, config: config.jobs, onFault, onEnded: waiting.wake })
  const reach = createReach(upstreams)
  const overdue = new AbortController()
  const watch = createWatch({ engine, books, reach, config: config.jobs, onFault })
  const orders = createOrders({ ...given, books, reach, watch, overdue: overdue.signal, look })

  async function handle(call: JobRequest, what: JobCall): Promise<Told | undefined> {
    if (what === 'create' || what === 'edit' || what === 'extend') return orders.place(call, what, undefined)
    if (what === 'list') return list(call)
    const id = idOf(call)
    const job = id.startsWith(call.jobs.prefix) ? await books.find(call.account, id, call.subject) : undefined
    if (job === undefined) return unknown(id)
    if (what === 'remix') return orders.place(call, what, job)
    if (what === 'look') return look(call, job)
    return what === 'content' ? content(call, job) : remove(call, job)
  }

  /** What the upstream says of it now; an end that is seen here is told at once. */
  async function ask(call: JobRequest, job: Job) {
    const told = await jsonOf(await reach.send('GET', job.note, { account: call.account, signal: call.gone }))
    const seen = isWell(told.status) && told.json !== undefined ? call.jobs.see(told.json) : undefined
    return { ...told, seen: seen?.id === job.note.id ? seen : undefined }
  }

  async function look(call: JobRequest, job: Job): Promise<Told | undefined> {
    const told = await ask(call, job)
    if (told.seen === undefined) return strange(call, job, told)
    await books.see(job, told.seen)
    answerJson(call.response, told, shown(call.jobs, job, told.json as Json), requestId(job))
    return undefined
  }

  /** Its bytes as they come, no faster than the caller takes them; never before what was made is charged. */
  async function content(call: JobRequest, job: Job): Promise<Told | undefined> {
    if (job.standing.state !== 'settled') {
      const told = await ask(call, job)
      if (told.seen === undefined) return strange(call, job, told)
      await books.see(job, told.seen)
    }
    const answer = await reach.send('GET', job.note, {
      account: call.account,
      signal: call.gone,
      more: `/content${call.url.search}`,
      headers: forUpstream(call.request.headers),
    })
    // 416 is about the range that was asked for, and tells how long the whole is.
    if (answer.status >= 400 && answer.status !== 416) return strange(call, job, await jsonOf(answer))
    const { 'content-length': length } = answer.headers
    call.response.writeHead(answer.status, {
      ...forCaller(answer.headers),
      ...(typeof length === 'string' && { 'content-length': length }),
      ...requestId(job),
    })
    // Whoever is cut off, on either side, sees that it is not whole.
    await pipeline(answer.body, call.response).catch(() => call.response.destroy())
    return undefined
  }

  async function remove(call: JobRequest, job: Job): Promise<Told | undefined> {
    const id = job.standing.request_id
    // What was made before it was deleted is charged all the same.
    const isOver = job.standing.state === 'settled' || (await isDone(call, job))
    const answer = await reach.send('DELETE', job.note, { account: call.account, signal: call.gone })
    if (!isWell(answer.status) && answer.status !== 404) return strange(call, job, await jsonOf(answer))
    drop(answer)
    if (!isOver) await books.cancel(job)
    await forget(call, id)
    answerJson(call.response, { status: 200, headers: {} }, call.jobs.removed(id), requestId(job))
    return undefined
  }

  async function isDone(call: JobRequest, job: Job): Promise<boolean> {
    const { seen } = await ask(call, job)
    return seen !== undefined && books.see(job, seen)
  }

  /** Its note may be written by whoever watches it at the same time. */
  async function forget(call: JobRequest, id: string): Promise<void> {
    for (;;) {
      const job = await books.find(call.account, id, call.subject)
      if (job === undefined) return
      await books.write(job, { ...job.note, removed: true })
    }
  }

  async function list(call: JobRequest): Promise<Told | undefined> {
    const { searchParams } = call.url
    const limit = Number(searchParams.get('limit') ?? USUAL_LIMIT)
    const order = searchParams.get('order') ?? 'desc'
    if (!Number.isInteger(limit) || limit < 1 || limit > MAX_LIMIT)
      return badRequest('invalid', `limit is a whole number from 1 to ${MAX_LIMIT}`)
    if (order !== 'asc' && order !== 'desc') return badRequest('invalid', 'order is asc or desc')
    const all = await ownJobs(call)
    if (order === 'desc') all.reverse()
    const after = searchParams.get('after')
    const from = after === null ? 0 : all.findIndex(({ standing }) => standing.request_id === after) + 1
    if (after !== null && from === 0) return unknown(after)
    const page = all.slice(from, from + limit)
    const told = await inTurn(page, (job) => listed(call, job))
    const known = told.filter((one) => one !== undefined)
    answerJson(call.response, { status: 200, headers: {} }, call.jobs.list(known, all.length > from + limit))
    return undefined
  }

  /** Undefined for one of which its upstream tells nothing now. */
  async function listed(call: JobRequest, job: Job): Promise<Json | undefined> {
    try {
      const { seen, json } = await ask(call, job)
      if (seen === undefined) return undefined
      await books.see(job, seen)
      return shown(call.jobs, job, json as Json)
    } catch (error) {
      call.gone.throwIfAborted()
      onFault(error)
      return undefined
    }
  }

  /** Oldest first. */
  async function ownJobs(call: JobRequest): Promise<Job[]> {
    const prefix = jobsPrefix(call.jobs.prefix, call.account)
    const found: Job[] = []
    let cursor: string | undefined
    do {
      const page = await engine.requests(call.account, {
        prefix,
        limit: LIST_PAGE,
        ...(cursor === undefined ? {} : { cursor }),
      })
      for (const standing of page.items) {
        const job = jobOf(standing)
        if (job !== undefined && job.note.removed !== true && books.isOwn(job, call.subject)) found.push(job)
      }
      cursor = page.next ?? undefined
    } while (cursor !== undefined && found.length < MAX_LISTED)
    return found.sort(
      ({ standing: a }, { standing: b }) =>
        a.created_at - b.created_at || (a.request_id < b.request_id ? -1 : 1),
    )
  }

  /** No job in the answer: what the upstream says instead, without what it calls the job. */
  function strange(
    call: JobRequest,
    job: Job,
    told: { readonly status: number; readonly json: Json | undefined },
  ) {
    const { status, json } = told
    if (status === 404) return unknown(job.standing.request_id)
    if (isWell(status) || status === 401 || status === 403 || json === undefined)
      return badUpstream('upstream_wrong', 'the upstream cannot tell of this job')
    answerJson(call.response, { status, headers: {} }, shown(call.jobs, job, json), requestId(job))
    return undefined
  }

  return {
    handle,
    get watched() {
      return watch.size
    },
    abort: () => overdue.abort(new SluiceError('closing', 'The gateway is shutting down.')),
    close: () => watch.close(),
  }
}

const requestId = ({ standing }: Job) => ({ 'x-sluice-request-id': standing.request_id })

const shown = (jobs: Jobs, { standing, note }: Job, json: Json): Json =>
  jobs.show(json, { upstream: note.id, id: standing.request_id, source: note.source })

/** What stands at the place of `:id`. */
function idOf({ url, endpoint }: JobRequest): string {
  const place = endpoint.path.split('/').indexOf(':id')
  return url.pathname.split('/')[place] ?? ''
}

async function inTurn<T, R>(items: readonly T[], each: (item: T) => Promise<R>): Promise<R[]> {
  const answers: R[] = new Array(items.length)
  let next = 0
  const worker = async (): Promise<void> => {
    for (let place = next++; place < items.length; place = next++)
      answers[place] = await each(items[place] as T)
  }
  await Promise.all(Array.from({ length: Math.min(LISTED_AT_ONCE, items.length) }, worker))
  return answers
}
