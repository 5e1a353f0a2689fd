/**
 * Ordering a job: held, made at the upstream, and noted where it is. Between the upstream's answer and the note lies one commit: who
 * dies there leaves a hold of some minutes, which ends as the plan says, and a job that nobody knows of.
 */
import type { ServerResponse } from 'node:http'
import type { Refused } from '../../../client/access.ts'
import type { Caller, Engine } from '../../engine.ts'
import { SluiceError } from '../../errors.ts'
import type { DecisionAnswer } from '../../wire.ts'
import { type Brought, readBody } from '../bodies.ts'
import type { GatewayConfig, TargetConfig } from '../config.ts'
import {
  badRequest,
  badUpstream,
  failureOf,
  limitHeaders,
  notFound,
  refusalOf,
  type Told,
  unknownVideo as unknown,
} from '../failures.ts'
import { badRouteOf, placesOf, routeOf } from '../forward.ts'
import { forCaller, forUpstream } from '../headers.ts'
import type { JobAsked, JobOrder, Jobs, Json } from '../provider.ts'
import { isUnwell, type Upstream, UpstreamFailed } from '../upstream.ts'
import type { Waiting } from '../waiting.ts'
import { digest, type Job, type JobBooks, jobId, jobsPrefix, type NewJob, persist } from './books.ts'
import type { JobRequest } from './door.ts'
import { drop, isWell, jsonOf, type Reach, type ToldJson } from './reach.ts'
import type { Watch } from './watch.ts'

/** How long it is held at first, for the upstream to take the order. */
const ORDER_MS = 5 * 60_000
/** An order under the same key whose tries all failed is not tried for ever. */
const MAX_ATTEMPTS = 16

export interface Orders {
  /** `source` is the job that it goes on from. Answers what went wrong before anything was sent to the caller. */
  place(call: JobRequest, what: JobOrder, source: Job | undefined): Promise<Told | undefined>
}

export interface OrdersOptions {
  readonly engine: Engine
  readonly config: GatewayConfig
  readonly upstreams: ReadonlyMap<string, Upstream>
  readonly waiting: Waiting
  readonly books: JobBooks
  readonly reach: Reach
  readonly watch: Watch
  readonly onFault: (error: unknown) => void
  /** Aborted where the gateway can wait for no order any more. */
  readonly overdue: AbortSignal
  /** Answers with the job as it stands. */
  readonly look: (call: JobRequest, job: Job) => Promise<Told | undefined>
}

interface Order {
  readonly what: JobOrder
  readonly feature: string
  readonly asked: JobAsked
  readonly targets: readonly TargetConfig[]
  readonly brought: Brought
  readonly source: Job | undefined
  /** What the caller calls this order by, so that a retry is known. */
  readonly key: string | undefined
}

export function createOrders(given: OrdersOptions): Orders {
  const { engine, config, upstreams, waiting, books, reach, watch, onFault } = given
  /** Orders under a key that are being placed: the same order again waits for them. */
  const placing = new Map<string, Promise<unknown>>()

  async function place(call: JobRequest, what: JobOrder, named: Job | undefined): Promise<Told | undefined> {
    const order = await read(call, what, named)
    if ('failure' in order) return order
    if (order.key === undefined) return anyTarget(call, order)
    const name = `${call.account} ${order.key}`
    const before = placing.get(name)
    const mine = Promise.resolve(before)
      .catch(() => {})
      .then(() => anyTarget(call, order))
    placing.set(name, mine)
    try {
      return await mine
    } finally {
      if (placing.get(name) === mine) placing.delete(name)
    }
  }

  async function read(call: JobRequest, what: JobOrder, named: Job | undefined): Promise<Order | Told> {
    const isForm = /^multipart\/form-data\b/i.test(call.request.headers['content-type'] ?? '')
    const brought = await readBody(call.request, isForm ? 'form' : 'json', config.maxBodyBytes)
    if ('failure' in brought) return brought
    const key = call.request.headers['idempotency-key']
    if (Array.isArray(key) || (key !== undefined && !/^[\x20-\x7e]{1,256}$/.test(key)))
      return badRequest('invalid', 'an Idempotency-Key is one line of at most 256 characters')
    const source = what === 'create' ? undefined : (named ?? (await sourceOf(call, brought.body)))
    if (source !== undefined && 'failure' in source) return source
    const common = { what, brought, source, key: key === undefined ? undefined : keyOf(call, key) }
    if (source !== undefined) {
      const again = await remade(call, what, brought.body, source)
      if ('failure' in again) return again
      const order = { ...common, ...again }
      fieldsFor(call, order, again.targets[0] as TargetConfig)
      return order
    }
    const asked = call.jobs.read(brought.body, undefined, what)
    const route = routeOf(config, asked, call.endpoint)
    if (route === undefined) return badRouteOf(asked.model, call.endpoint)
    const targets = placesOf(
      { ...call, body: brought.body },
      call.plan.fallback ? route.targets : route.targets.slice(0, 1),
    )
    return { ...common, asked, feature: route.feature, targets: targets.map(({ target }) => target) }
  }

  /** The job that a body names: the caller's own, or there is none. */
  async function sourceOf(call: JobRequest, fields: Json): Promise<Job | Told> {
    const id = call.jobs.sourceIn(fields)
    const job = id.startsWith(call.jobs.prefix) ? await books.find(call.account, id, call.subject) : undefined
    return job ?? unknown(id)
  }

  /** What is made from another job is made where that is, and paid as that was. */
  async function remade(call: JobRequest, what: JobOrder, fields: Json, { standing, note }: Job) {
    const { account } = call
    const told = await jsonOf(await reach.send('GET', note, { account, signal: call.gone }))
    const upstream = config.upstreams.get(note.upstream)
    if (told.status === 404) return notFound(`there is no video ${standing.request_id} any more`)
    if (upstream === undefined || !isWell(told.status) || told.json === undefined)
      return badUpstream('upstream_wrong', 'the upstream cannot tell of what it is to be made from')
    const model = standing.attributes.model ?? told.json.model
    const asked = call.jobs.read(fields, { ...told.json, model }, what)
    return { asked, feature: standing.feature, targets: [{ upstream, model: undefined }] }
  }

  async function anyTarget(call: JobRequest, order: Order): Promise<Told | undefined> {
    let told: Told | undefined
    let attempt = 0
    for (const [place, target] of order.targets.entries()) {
      const isLast = place === order.targets.length - 1
      for (;;) {
        if (attempt >= MAX_ATTEMPTS)
          return told ?? badRequest('order_failed', 'this order has failed too often: give it another key')
        const outcome = await tryOnce(call, order, target, attempt++, isLast)
        if (outcome === 'used') continue
        if (outcome === 'answered') return undefined
        told = outcome.told
        if (!outcome.another) return told
        break
      }
    }
    return told
  }

  /** `used`: under this key and attempt an order failed before. */
  async function tryOnce(
    call: JobRequest,
    order: Order,
    target: TargetConfig,
    attempt: number,
    isLast: boolean,
  ): Promise<'answered' | 'used' | { readonly told: Told; readonly another: boolean }> {
    const { account } = call
    const start = jobsPrefix(call.jobs.prefix, account)
    const id = jobId(start, order.key === undefined ? undefined : { text: order.key, attempt })
    const decision = await admit(call, order, target, id).catch((error: unknown) => {
      if (order.key !== undefined && error instanceof SluiceError && error.code === 'conflict')
        return undefined
      throw error
    })
    if (decision === undefined) return { told: KEY_REUSED, another: false }
    if (decision.replayed) {
      const known = await books.find(account, id, call.subject)
      if (known !== undefined)
        return known.note.order === orderOf(order)
          ? answeredBy(await given.look(call, known))
          : { told: KEY_REUSED, another: false }
      if (decision.state !== 'open') return 'used'
    } else if (decision.outcome !== 'allow') return { told: refusalOf(refusedBy(decision)), another: false }
    const made = await make(call, order, target, isLast)
    if ('told' in made) {
      const reason = `it could not be ordered: ${made.told.failure.code}`
      await persist(() => engine.release({ account, request_id: id, reason }, callerOf(call))).catch(onFault)
      waiting.wake(account)
      return made
    }
    return answeredBy(await noted(call, order, target, { ...made, id, decision }))
  }

  /** Holds all of it or nothing, and stands in the row for it where the plan lets it. */
  async function admit(
    call: JobRequest,
    { asked, feature, source }: Order,
    target: TargetConfig,
    id: string,
  ): Promise<DecisionAnswer> {
    const request = {
      request_id: id,
      account: call.account,
      ...(call.subject !== undefined && { subject: call.subject }),
      feature,
      attributes: {
        ...asked.attributes,
        model: source === undefined ? (target.model ?? asked.model) : asked.model,
      },
      estimate: asked.quantities,
      ttl_ms: ORDER_MS,
    }
    const ask = () => engine.reserve(request, callerOf(call))
    if (call.plan.waitMs === 0) return ask()
    return waiting.stand<DecisionAnswer>({
      account: call.account,
      // A row of their own: those who stand in one are answered alike.
      row: JSON.stringify(['jobs', call.account, call.subject ?? {}, feature]),
      waitMs: ({ outcome, retry_after_ms }) => (outcome === 'wait' ? retry_after_ms : undefined),
      ask,
      mostMs: call.plan.waitMs,
      signal: call.gone,
    })
  }

  /**
   * Has it made. Nothing of it hangs on the caller: who leaves now has a job all the same, and it is noted. It is sent once,
   * since an upstream may have taken an order that it did not answer.
   */
  async function make(
    call: JobRequest,
    order: Order,
    target: TargetConfig,
    isLast: boolean,
  ): Promise<Made | { readonly told: Told; readonly another: boolean }> {
    const upstream = upstreams.get(target.upstream.name) as Upstream
    const { key, provider } = target.upstream
    const sent = await writtenOf(order.brought, fieldsFor(call, order, target), target.model)
    try {
      const answer = await upstream.send({
        account: call.account,
        method: 'POST',
        path: pathOf(call, order),
        headers: {
          ...forUpstream(call.request.headers),
          'content-type': sent.type,
          ...(key !== undefined && provider.authorize(key)),
        },
        body: sent.bytes,
        signal: given.overdue,
      })
      if (answer.status === 401 || answer.status === 403) {
        drop(answer)
        return { told: badUpstream('upstream_wrong', 'the upstream refused the gateway'), another: true }
      }
      if (isUnwell(answer.status) && !isLast) {
        drop(answer)
        return { told: badUpstream('upstream_unwell', `${target.upstream.name} is not well`), another: true }
      }
      const told = await jsonOf(answer)
      if (!isWell(told.status)) return { told: passedOn(told), another: false }
      const seen = told.json === undefined ? undefined : call.jobs.see(told.json)
      if (seen === undefined)
        return {
          told: badUpstream('upstream_wrong', 'the upstream did not answer with a job'),
          another: false,
        }
      return { seen, answer: told }
    } catch (error) {
      return { told: failureOf(error), another: error instanceof UpstreamFailed }
    }
  }

  async function noted(
    call: JobRequest,
    order: Order,
    target: TargetConfig,
    { id, seen, answer, decision }: Made & { readonly id: string; readonly decision: DecisionAnswer },
  ): Promise<Told | undefined> {
    const { account, jobs } = call
    const where = { upstream: target.upstream.name, id: seen.id }
    const fresh: NewJob = {
      ...where,
      asked: order.asked.quantities,
      ...(order.asked.isToldInAll && { isToldInAll: true }),
      ...(order.key !== undefined && { order: orderOf(order) }),
      ...(order.source !== undefined && { source: order.source.standing.request_id }),
    }
    const job = await persist(() => books.begin(account, id, fresh, watch.leaseFrom)).catch((error) => {
      onFault(error)
      return failureOf(error)
    })
    if ('failure' in job) {
      await takeBack(where, account)
      const reason = 'it could not be noted where it is made'
      await engine.release({ account, request_id: id, reason }, callerOf(call)).catch(onFault)
      return job
    }
    if (job.note.id !== seen.id) {
      // Another node has placed the same order meanwhile.
      await takeBack(where, account)
      return given.look(call, job)
    }
    watch.add(job)
    await books.see(job, seen).catch(onFault)
    answerJson(
      call.response,
      answer,
      jobs.show(answer.json as Json, { upstream: seen.id, id, source: fresh.source }),
      {
        ...limitHeaders(decision),
        'x-sluice-request-id': id,
      },
    )
    return undefined
  }

  /** As well as can be: many upstreams do not let go of what they make. */
  async function takeBack(
    where: { readonly upstream: string; readonly id: string },
    account: string,
  ): Promise<void> {
    try {
      drop(await reach.send('DELETE', where, { account, signal: AbortSignal.timeout(10_000) }))
    } catch (error) {
      onFault(error)
    }
  }

  return { place }
}

interface Made {
  readonly seen: NonNullable<ReturnType<Jobs['see']>>
  readonly answer: ToldJson
}

const pathOf = ({ endpoint }: JobRequest, { what, source }: Order): string =>
  what === 'remix' && source !== undefined
    ? endpoint.path.replace(':id', encodeURIComponent(source.note.id))
    : endpoint.path

/** What goes to this upstream: with the ids that it knows. Throws where the caller has none of them. */
function fieldsFor(call: JobRequest, { what, brought, source }: Order, { upstream }: TargetConfig): Json {
  const fields = call.kept?.ask(brought.body, upstream) ?? brought.body
  return source === undefined || what === 'remix' ? fields : call.jobs.withSource(fields, source.note.id)
}

const callerOf = ({ actor, subject }: JobRequest): Caller => ({ actor, subject })

/** The same key of another account or subject names another order. */
const keyOf = ({ account, subject = {}, endpoint, url }: JobRequest, key: string): string =>
  digest(JSON.stringify([account, Object.entries(subject).sort(), endpoint.name, url.pathname, key]))

const orderOf = ({ brought }: Order): string => digest(JSON.stringify(brought.body)).slice(0, 16)

/** Written anew from what was read, so that no upstream finds another order in the same bytes. */
async function writtenOf({ body, form }: Brought, fields: Json, model: string | undefined) {
  if (form === undefined)
    return {
      type: 'application/json',
      bytes: JSON.stringify(model === undefined ? fields : { ...fields, model }),
    }
  for (const [name, value] of Object.entries(fields)) {
    if (value === body[name]) continue
    form.delete(name)
    for (const one of [value].flat()) form.append(name, String(one))
  }
  if (model !== undefined) form.set('model', model)
  const whole = new Response(form)
  return { type: whole.headers.get('content-type') as string, bytes: Buffer.from(await whole.arrayBuffer()) }
}

// Not 409: the official clients would try that again.
const KEY_REUSED = badRequest('idempotency_key_reused', 'this Idempotency-Key stands for another order')

const answeredBy = (told: Told | undefined) => (told === undefined ? 'answered' : { told, another: false })

function refusedBy(decision: DecisionAnswer): Refused {
  const { outcome, request_id, reason, retry_after_ms } = decision
  return {
    ok: false,
    request_id,
    outcome: outcome === 'wait' ? 'wait' : 'deny',
    reason,
    retryAfterMs: retry_after_ms,
    decision,
    error: undefined,
  }
}

/** An upstream's refusal of an order, said again in the gateway's own words and with its status. */
function passedOn({ status, json }: ToldJson): Told {
  const error = json?.error
  const { message, code, param } = (typeof error === 'object' && error !== null ? error : {}) as Json
  const { failure } = badRequest(
    typeof code === 'string' ? code : 'upstream_refused',
    typeof message === 'string' ? message : 'the upstream refused it',
  )
  return {
    failure: {
      ...failure,
      status,
      kind: status >= 500 ? 'upstream' : status === 429 ? 'wait' : 'invalid',
      ...(typeof param === 'string' && { path: param }),
    },
    headers: {},
  }
}

export function answerJson(
  response: ServerResponse,
  { status, headers }: Pick<ToldJson, 'status' | 'headers'>,
  json: Json,
  more: Readonly<Record<string, string>> = {},
): void {
  const body = JSON.stringify(json)
  response.writeHead(status, {
    ...forCaller(headers),
    ...more,
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
  })
  response.end(body)
}
