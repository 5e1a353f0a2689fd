/**
 * One metered call, from its body to its charge: what it needs is held, the upstream is asked within what was granted, its answer
 * goes through as it comes, and what it used is settled. Every way out ends the hold.
 */
import { once } from 'node:events'
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Refused } from '../../client/access.ts'
import type { Client } from '../../client/client.ts'
import { type Opened, open } from '../../client/open.ts'
import type { Subject } from '../wire.ts'
import type { GatewayConfig, PlanConfig, RouteConfig, TargetConfig } from './config.ts'
import { badUpstream, failureOf, limitHeaders, refusalOf, type Told } from './failures.ts'
import { forCaller, forUpstream } from './headers.ts'
import type { Asked, Endpoint, Granted, Json, Meter, Provider } from './provider.ts'
import { createSplitter, type Frame } from './sse.ts'
import {
  createRetryBudget,
  isUnwell,
  type Upstream,
  type UpstreamAnswer,
  UpstreamFailed,
} from './upstream.ts'
import { boundOf, neededBy, type Used, usedBy } from './used.ts'
import type { Waiting } from './waiting.ts'
import type { Tale } from './watch.ts'

export interface Metered {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly tale: Tale
  readonly account: string
  readonly subject: Subject | undefined
  readonly access: Pick<Client, 'access'>
  readonly plan: PlanConfig
  readonly provider: Provider
  readonly endpoint: Endpoint
  readonly meter: Meter
  /** With its query. */
  readonly path: string
  readonly body: Json
  /** The fields and files as they came, where `body` is what they say. */
  readonly form?: FormData | undefined
  /** As it came, where nobody looks into it. */
  readonly bytes?: Buffer | undefined
  /** The one that the owner's rule for its path names. */
  readonly route?: RouteConfig | undefined
  /** Aborted when the caller has gone. */
  readonly gone: AbortSignal
}

export interface ForwardOptions {
  readonly config: GatewayConfig
  readonly upstreams: ReadonlyMap<string, Upstream>
  readonly waiting: Waiting
}

/** Answers are JSON up to this size; beyond it nothing is read from them, and they are charged as estimated. */
const MAX_READ_BYTES = 16 * 1024 * 1024
/** Renewed at half of it, so that a gateway that dies holds nothing for long. */
const LEASH_MS = 30_000
/**
 * Input is certain; of output more is needed as it grows. Where the upstream is bounded it is not, unless the upstream does not keep
 * to that, which is seen late: until it tells what was used, tokens are counted by length, and too many by up to a third.
 */
const GROWS = { of: ['output_tokens'], from: 0.75 }
const BOUNDED = { of: ['output_tokens'], from: 1.5 }

export interface Forward {
  /** Answers what went wrong before anything was sent to the caller; undefined where an answer has begun. */
  metered(call: Metered): Promise<Told | undefined>
}

export function createForward({ config, upstreams, waiting }: ForwardOptions): Forward {
  const retries = createRetryBudget()

  async function metered(call: Metered): Promise<Told | undefined> {
    const asked = call.meter.read(call.body)
    const route = call.route ?? routeOf(config, asked, call.endpoint)
    if (route === undefined) return badRouteOf(asked.model, call.endpoint)
    const targets = call.plan.fallback ? route.targets : route.targets.slice(0, 1)
    let failed: Failed | undefined
    for (const [place, target] of targets.entries()) {
      const isLast = place === targets.length - 1
      const outcome = await attempt(call, asked, route, target, isLast)
      if (outcome === 'answered') return undefined
      failed = outcome
      if (call.gone.aborted || !outcome.another) return outcome.told
    }
    return failed?.told
  }

  /** One upstream: its own hold, since what really runs is what is charged. */
  async function attempt(
    call: Metered,
    asked: Asked,
    route: RouteConfig,
    target: TargetConfig,
    isLast: boolean,
  ): Promise<'answered' | Failed> {
    const opened = await admit(call, asked, route, target)
    call.tale.request = opened.ok ? opened.lease.request_id : opened.request_id
    if (!opened.ok) return { told: refusalOf(opened), another: false }
    const used = usedBy(asked, opened)
    const stop = new AbortController()
    const onGone = (): void => stop.abort(call.gone.reason)
    if (call.gone.aborted) onGone()
    const stream = { isWhole: false }
    const onSpent = (): void => {
      if (call.plan.whenSpent === 'end' && !stream.isWhole) stop.abort(opened.lease.signal.reason)
    }
    call.gone.addEventListener('abort', onGone, { once: true })
    opened.lease.signal.addEventListener('abort', onSpent, { once: true })
    try {
      const answer = await ask(call, target, boundOf(asked, opened), stop.signal)
      if (isUnwell(answer.status) && !isLast) {
        answer.body.on('error', () => {}).destroy()
        await opened.end('failed')
        return { told: badUpstream('upstream_unwell', `${target.upstream.name} is not well`), another: true }
      }
      // Of a whole answer the caller may have seen all but the end when it goes: it is read to its end, and charged.
      if (!isStreamed(answer)) call.gone.removeEventListener('abort', onGone)
      return await passOn(call, asked, opened, used, answer, stop, stream)
    } catch (error) {
      await opened.end(call.gone.aborted ? 'cutOff' : 'failed')
      if (call.response.headersSent) {
        call.response.destroy()
        return 'answered'
      }
      return { told: failureOf(error), another: error instanceof UpstreamFailed }
    } finally {
      call.gone.removeEventListener('abort', onGone)
      opened.lease.signal.removeEventListener('abort', onSpent)
      waiting.wake(call.account)
    }
  }

  /** Holds what the call needs, or stands in the row for it where the plan lets it. */
  async function admit(
    call: Metered,
    asked: Asked,
    route: RouteConfig,
    target: TargetConfig,
  ): Promise<Opened | Refused> {
    const request = requestOf(call, asked, route, target)
    const growth = asked.bound.output_tokens === undefined ? GROWS : BOUNDED
    const ask = () => open(call.access, request, { endpoint: call.endpoint.name, growth })
    const first = await ask()
    if (first.ok || first.outcome !== 'wait' || call.plan.waitMs === 0) return first
    const waited = await waiting.stand<Opened | Refused>({
      account: call.account,
      row: JSON.stringify([call.account, call.subject ?? {}, route.feature]),
      first,
      waitMs: (answer) => (answer.ok || answer.outcome !== 'wait' ? undefined : answer.retryAfterMs),
      ask,
      mostMs: call.plan.waitMs,
      signal: call.gone,
    })
    return waited ?? first
  }

  function requestOf(call: Metered, asked: Asked, route: RouteConfig, target: TargetConfig) {
    const model = target.model ?? asked.model
    return {
      account: call.account,
      ...(call.subject !== undefined && { subject: call.subject }),
      feature: route.feature,
      attributes: { ...asked.attributes, ...(model !== undefined && { model }) },
      ttl_ms: LEASH_MS,
      ...neededBy(asked, config),
    }
  }

  /** Sends it, and once more where nothing of an answer came and the budget has room. */
  async function ask(
    call: Metered,
    target: TargetConfig,
    bound: number | undefined,
    signal: AbortSignal,
  ): Promise<UpstreamAnswer> {
    const upstream = upstreams.get(target.upstream.name) as Upstream
    const { body, type } = await written(call, { model: target.model, bound })
    const { key, provider } = target.upstream
    const request = {
      method: call.endpoint.method,
      path: call.path,
      headers: {
        ...forUpstream(call.request.headers),
        ...(type !== undefined && { 'content-type': type }),
        ...(key !== undefined && provider.authorize(key)),
      },
      body,
      signal,
    }
    retries.earn()
    try {
      return await upstream.send(request)
    } catch (error) {
      const isWorthIt = error instanceof UpstreamFailed && error.code === 'upstream_unreachable'
      if (!isWorthIt || !retries.spend()) throw error
      return upstream.send(request)
    }
  }

  return { metered }
}

/** The body as it goes upstream. A form is written anew from what was read of it, so that nobody reads it otherwise. */
async function written(
  call: Metered,
  granted: Granted,
): Promise<{ readonly body: Buffer | string | undefined; readonly type: string | undefined }> {
  const { form, bytes, meter } = call
  if (form !== undefined) {
    // A try before this one may have left the name of its own.
    if (typeof call.body.model === 'string') form.set('model', granted.model ?? call.body.model)
    const whole = new Response(form)
    return {
      body: Buffer.from(await whole.arrayBuffer()),
      type: whole.headers.get('content-type') ?? undefined,
    }
  }
  if (bytes !== undefined)
    return { body: bytes.length === 0 ? undefined : bytes, type: call.request.headers['content-type'] }
  return { body: JSON.stringify(meter.write(call.body, granted)), type: 'application/json' }
}

interface Failed {
  readonly told: Told
  /** Whether another upstream may do better. */
  readonly another: boolean
}

export function badRouteOf(model: string | undefined, endpoint: Endpoint): Told {
  const { failure } = badUpstream('no_route', `nothing serves ${model ?? 'this'} at ${endpoint.name}`)
  return { failure: { ...failure, status: 404, kind: 'not_found' }, headers: {} }
}

export function routeOf(
  config: GatewayConfig,
  { model = '' }: Pick<Asked, 'model'>,
  { name }: Endpoint,
): RouteConfig | undefined {
  return config.routes.find((route) => route.model.test(model) && route.endpoint.test(name))
}

const isStreamed = ({ headers }: UpstreamAnswer): boolean =>
  /^text\/event-stream\b/i.test(String(headers['content-type'] ?? ''))

/** Of a stream on its way: whether all that it brings has come, so that nothing ends it any more. */
interface Passing {
  isWhole: boolean
}

/** Sends the answer on as it comes. */
async function passOn(
  call: Metered,
  asked: Asked,
  opened: Opened,
  used: Used,
  answer: UpstreamAnswer,
  stop: AbortController,
  stream: Passing,
): Promise<'answered' | Failed> {
  const type = String(answer.headers['content-type'] ?? '')
  const isWell = answer.status >= 200 && answer.status < 300
  const isStream = isStreamed(answer)
  const isRead = call.meter.answersAny === true || /^application\/(?:[\w.-]+\+)?json\b/i.test(type)
  if (answer.status === 401 || answer.status === 403 || (isWell && !isStream && !isRead)) {
    answer.body.on('error', () => {}).destroy()
    await opened.end('failed')
    const says = isWell
      ? `it answered with ${type || 'nothing that says its type'}`
      : 'it refused the gateway'
    return { told: badUpstream('upstream_wrong', `the upstream cannot serve this: ${says}`), another: true }
  }
  const { response } = call
  response.writeHead(answer.status, {
    ...forCaller(answer.headers),
    ...limitHeaders(opened.lease.decision),
    'x-sluice-request-id': opened.lease.request_id,
    ...(opened.lease.outcome === 'partial' && {
      'x-sluice-granted': `output_tokens=${boundOf(asked, opened) ?? ''}`,
    }),
  })
  if (!isWell) {
    await pipeWhole(answer, response, call.gone)
    await opened.end('failed')
  } else if (isStream && call.meter.stream !== undefined) {
    call.tale.isStream = true
    await passStream(call, opened, used, answer, stop, stream, call.meter.stream(call.body))
  } else await passWhole(call, opened, used, answer)
  return 'answered'
}

async function passWhole(call: Metered, opened: Opened, used: Used, answer: UpstreamAnswer): Promise<void> {
  const pieces: Buffer[] = []
  let size = 0
  await pipeWhole(answer, call.response, call.gone, (piece) => {
    size += piece.length
    if (size <= MAX_READ_BYTES) pieces.push(piece)
  })
  const text = size <= MAX_READ_BYTES ? Buffer.concat(pieces).toString('utf8') : ''
  const read = jsonOf(text)
  const told = read === undefined ? undefined : call.meter.usage(read, call.body)
  if (told !== undefined) used.usage(told)
  else if (read !== undefined) used.text(call.meter.textOf?.(read) ?? '')
  await used.count()
  await opened.end('done')
}

async function passStream(
  call: Metered,
  opened: Opened,
  used: Used,
  answer: UpstreamAnswer,
  stop: AbortController,
  stream: Passing,
  reader: ReturnType<NonNullable<Meter['stream']>>,
): Promise<void> {
  const { response } = call
  const splitter = createSplitter()
  /** False where the stream is to end here. */
  const see = (frames: readonly Frame[], shown: Buffer[]): boolean => {
    for (const { event, data, bytes } of frames) {
      const seen = data === '' ? undefined : reader.see(event, data)
      if (seen === undefined || seen.isShown)
        shown.push(seen?.instead === undefined ? bytes : Buffer.from(seen.instead))
      if (seen === undefined) continue
      if (seen.known !== undefined) used.known(seen.known)
      const goesOn = seen.usage === undefined ? used.text(seen.text) : used.usage(seen.usage)
      stream.isWhole ||= seen.isEnd
      if (!goesOn && !stream.isWhole && call.plan.whenSpent === 'end') return false
    }
    return true
  }
  const endHere = async (): Promise<void> => {
    stop.abort(opened.lease.signal.reason)
    response.end(reader.ending())
    await used.count()
    await opened.end('done')
  }
  try {
    for await (const piece of answer.body) {
      const shown: Buffer[] = []
      const goesOn = see(splitter.push(piece as Buffer), shown)
      if (shown.length > 0 && !response.write(shown.length === 1 ? shown[0] : Buffer.concat(shown)))
        await drained(response, call.gone)
      if (!goesOn) return await endHere()
    }
    const left = splitter.rest()
    if (left !== undefined) {
      const shown: Buffer[] = []
      see([left], shown)
      for (const bytes of shown) response.write(bytes)
    }
  } catch (error) {
    if (call.gone.aborted) {
      await used.count()
      return await opened.end('cutOff')
    }
    if (opened.lease.signal.aborted && call.plan.whenSpent === 'end') return await endHere()
    const { failure } = badUpstream('upstream_cut', 'the upstream broke off its answer')
    response.end(call.provider.failureInStream(failure))
    await used.count()
    await opened.end('failed')
    if (!(error instanceof RangeError)) stop.abort(error)
    return
  }
  response.end()
  await used.count()
  await opened.end('done')
}

/** The bytes as they come, no faster than the caller takes them; where it has gone, they are read for what they tell. */
async function pipeWhole(
  answer: UpstreamAnswer,
  response: ServerResponse,
  gone: AbortSignal,
  note?: (piece: Buffer) => void,
): Promise<void> {
  for await (const piece of answer.body) {
    note?.(piece as Buffer)
    if (!gone.aborted && !response.write(piece)) await drained(response, gone).catch(() => {})
  }
  response.end()
}

async function drained(response: ServerResponse, gone: AbortSignal): Promise<void> {
  gone.throwIfAborted()
  await once(response, 'drain', { signal: gone })
}

function jsonOf(text: string): Json | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? (value as Json) : undefined
  } catch {
    return undefined
  }
}
