/**
 * One metered call, from its body to its charge: what it needs is held, the upstream is asked within what was granted, its answer
 * goes through as it comes, and what it used is settled. Every way out ends the hold.
 */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Refused } from '../../client/access.ts'
import type { Client } from '../../client/client.ts'
import { type Opened, open } from '../../client/open.ts'
import { SluiceError } from '../errors.ts'
import type { Millis } from '../units.ts'
import type { Subject } from '../wire.ts'
import type { GatewayConfig, PlanConfig, RouteConfig, TargetConfig, UpstreamConfig } from './config.ts'
import { badUpstream, failureOf, limitHeaders, refusalOf, type Told } from './failures.ts'
import { drained, failureText, MAX_READ_BYTES, pipeWhole } from './flow.ts'
import { forCaller, forUpstream } from './headers.ts'
import type { KeptCall } from './kept.ts'
import {
  type Asked,
  BadBody,
  type Endpoint,
  type Granted,
  type Json,
  type Meter,
  type Provider,
  type StreamReader,
  UnknownId,
} from './provider.ts'
import { bytesOf, createSplitter, type Frame } from './sse.ts'
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
  /** Where it may name what upstreams keep, or be told of it. */
  readonly kept?: KeptCall | undefined
  /** Aborted when the caller has gone. */
  readonly gone: AbortSignal
}

export interface ForwardOptions {
  readonly config: GatewayConfig
  readonly upstreams: ReadonlyMap<string, Upstream>
  readonly waiting: Waiting
  /** Aborted when whatever still runs has to end. */
  readonly cut: AbortSignal
}

/** Renewed at half of it, so that a gateway that dies holds nothing for long. */
const LEASH_MS = 30_000
/**
 * Input is certain; of output more is needed as it grows. Where the upstream is bounded it is not, unless the upstream does not keep
 * to that, which is seen late: until it tells what was used, tokens are counted by length, and too many by up to a third.
 */
const GROWS = { of: ['output_tokens'], from: 0.75 }
const BOUNDED = { of: ['output_tokens'], from: 1.5 }
/** A stream whose text is whole when its caller leaves may still tell what it used. */
const LAST_WORD_MS = 10_000

export interface Forward {
  /** Answers what went wrong before anything was sent to the caller; undefined where an answer has begun. */
  metered(call: Metered): Promise<Told | undefined>
}

export function createForward({ config, upstreams, waiting, cut }: ForwardOptions): Forward {
  const retries = createRetryBudget()
  // Not a listener of each on `cut`: listeners are linked to each other, and one that is removed still names the next, so that in
  // V8's old generation a call that is long over keeps all that came after it.
  const running = new Set<AbortController>()
  cut.addEventListener('abort', () => {
    for (const stop of running) stop.abort(cut.reason)
  })

  async function metered(call: Metered): Promise<Told | undefined> {
    const asked = notTooDeep(() => call.meter.read(call.body))
    const route = call.route ?? routeOf(config, asked, call.endpoint)
    if (route === undefined) return badRouteOf(asked.model, call.endpoint)
    const targets = call.plan.fallback ? route.targets : route.targets.slice(0, 1)
    let failed: Failed | undefined
    const places = placesOf(call, targets)
    for (const [place, { target, body }] of places.entries()) {
      const isLast = place === places.length - 1
      const outcome = await attempt({ ...call, body }, asked, route, target, isLast)
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
    const stream: Passing = { isWhole: false, isStreamed: false, isFinished: false }
    let late: ReturnType<typeof setTimeout> | undefined
    // An error is made when there is one: with its stack it costs more than the timer.
    const stopAfter = (ms: Millis, why: () => unknown): void => {
      clearTimeout(late)
      late = setTimeout(() => stop.abort(why()), ms)
    }
    const { idleTimeoutMs, totalTimeoutMs } = target.upstream
    stopAfter(totalTimeoutMs, () => new UpstreamFailed('upstream_slow', 'the answer took longer than it may'))
    const onGone = (): void => {
      // Of a whole answer the caller may have seen all but the end when it goes, and of a stream all but what it used: they
      // are read to their end, which is not waited for for ever.
      if (stream.isFinished) stopAfter(LAST_WORD_MS, () => call.gone.reason)
      else if (stream.hasBegun === true && !stream.isStreamed)
        stopAfter(idleTimeoutMs, () => call.gone.reason)
      else stop.abort(call.gone.reason)
    }
    const onSpent = (): void => {
      if (call.plan.whenSpent === 'end' && !stream.isWhole) stop.abort(opened.lease.signal.reason)
    }
    if (call.gone.aborted) onGone()
    if (cut.aborted) stop.abort(cut.reason)
    call.gone.addEventListener('abort', onGone, { once: true })
    running.add(stop)
    opened.lease.signal.addEventListener('abort', onSpent, { once: true })
    try {
      const answer = await ask(call, target, boundOf(asked, opened), stop.signal)
      if (isUnwell(answer.status) && !isLast) {
        answer.body.on('error', () => {}).destroy()
        await opened.end('failed')
        return { told: badUpstream('upstream_unwell', `${target.upstream.name} is not well`), another: true }
      }
      stream.isStreamed = isStreamed(answer)
      stream.hasBegun = true
      return await passOn({ call, asked, opened, used, answer, stop, stream, target: target.upstream })
    } catch (error) {
      // Nobody reads any more of what it may still send.
      stop.abort(error)
      await opened.end(call.gone.aborted ? 'cutOff' : 'failed')
      if (call.response.headersSent) {
        call.response.destroy()
        return 'answered'
      }
      return { told: failureOf(error), another: error instanceof UpstreamFailed }
    } finally {
      clearTimeout(late)
      call.gone.removeEventListener('abort', onGone)
      running.delete(stop)
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
    if (call.plan.waitMs === 0) return ask()
    return waiting.stand<Opened | Refused>({
      account: call.account,
      row: JSON.stringify([call.account, call.subject ?? {}, route.feature]),
      waitMs: (answer) => (answer.ok || answer.outcome !== 'wait' ? undefined : answer.retryAfterMs),
      ask,
      mostMs: call.plan.waitMs,
      signal: call.gone,
    })
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
      account: call.account,
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
  return {
    body: notTooDeep(() => JSON.stringify(meter.write(call.body, granted))),
    type: 'application/json',
  }
}

/** Where it may be sent: of what it names as kept, each upstream knows its own. Throws where none knows all of it. */
export function placesOf(
  call: { readonly kept?: KeptCall | undefined; readonly body: Json },
  targets: readonly TargetConfig[],
) {
  const { kept, body } = call
  if (kept === undefined) return targets.map((target) => ({ target, body }))
  let wrong: unknown
  const places = targets.flatMap((target) => {
    try {
      return [{ target, body: notTooDeep(() => kept.ask(body, target.upstream)) }]
    } catch (error) {
      if (!(error instanceof BadBody || error instanceof UnknownId)) throw error
      wrong ??= error
      return []
    }
  })
  if (places.length === 0) throw wrong
  return places
}

/** What is nested deeper than the platform can write is the caller's mistake. */
function notTooDeep<T>(work: () => T): T {
  try {
    return work()
  } catch (error) {
    throw error instanceof RangeError ? new BadBody('', 'the body is nested too deep') : error
  }
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

/** How far an answer has come. */
interface Passing {
  hasBegun?: true
  isStreamed: boolean
  /** All that a stream brings has come, so that nothing ends it any more. */
  isWhole: boolean
  /** All but what it used. */
  isFinished: boolean
}

interface Answering {
  readonly call: Metered
  readonly asked: Asked
  readonly opened: Opened
  readonly used: Used
  readonly answer: UpstreamAnswer
  readonly stop: AbortController
  readonly stream: Passing
  readonly target: UpstreamConfig
}

/** Sends the answer on as it comes. */
async function passOn(answering: Answering): Promise<'answered' | Failed> {
  const { call, asked, opened, answer, target } = answering
  const { response } = call
  const type = String(answer.headers['content-type'] ?? '')
  const isWell = answer.status >= 200 && answer.status < 300
  const isStream = isStreamed(answer)
  const isRead = call.meter.answersAny === true || /^application\/(?:[\w.-]+\+)?json\b/i.test(type)
  const refuse = async (says: string): Promise<Failed> => {
    answer.body.on('error', () => {}).destroy()
    await opened.end('failed')
    return {
      told: badUpstream('upstream_wrong', `the upstream cannot serve this: ${says}`),
      another: true,
    }
  }
  if (answer.status === 401 || answer.status === 403) return refuse('it refused the gateway')
  // Where it points to is no place for the gateway's key, nor for the caller's.
  if (answer.status >= 300 && answer.status < 400) return refuse('it says that it is elsewhere')
  if (isWell && !isStream && !isRead)
    return refuse(`it answered with ${type || 'nothing that says its type'}`)
  const body = isWell ? undefined : await failureText(answer, target.key)
  if (!isWell && body === undefined) return refuse('it failed in a way that cannot be shown')
  response.writeHead(answer.status, {
    ...forCaller(answer.headers),
    ...limitHeaders(opened.lease.decision),
    'x-sluice-request-id': opened.lease.request_id,
    ...(opened.lease.outcome === 'partial' && {
      'x-sluice-granted': `output_tokens=${boundOf(asked, opened) ?? ''}`,
    }),
  })
  if (body !== undefined) {
    response.end(body)
    await opened.end('failed')
  } else if (isStream && call.meter.stream !== undefined) {
    call.tale.isStream = true
    await passStream(answering, call.meter.stream(call.body))
  } else await passWhole(answering)
  return 'answered'
}

async function passWhole({ call, opened, used, answer, target }: Answering): Promise<void> {
  const pieces: Buffer[] = []
  let size = 0
  try {
    const { kept } = call
    await pipeWhole(
      ...([answer, call.response, call.gone, target.idleTimeoutMs] as const),
      (piece) => {
        size += piece.length
        if (size <= MAX_READ_BYTES) pieces.push(piece)
      },
      kept?.tells === true ? (text) => kept.tell(text, target) : undefined,
    )
  } catch (error) {
    // What its caller has seen of it before it left is charged, though nobody waits for the rest.
    if (!call.gone.aborted) throw error
  }
  const text = size <= MAX_READ_BYTES ? Buffer.concat(pieces).toString('utf8') : ''
  const read = jsonOf(text)
  if (read === undefined) used.unread(size)
  else {
    const told = call.meter.usage(read, call.body)
    if (told === undefined || told.output_tokens === '0') used.text(call.meter.textOf?.(read) ?? '')
    if (told !== undefined) used.usage(told)
  }
  await used.count()
  await opened.end('done')
}

async function passStream(
  { call, opened, used, answer, stop, stream, target }: Answering,
  reader: StreamReader,
): Promise<void> {
  const { response } = call
  const splitter = createSplitter()
  const kept = call.kept?.tells === true ? call.kept : undefined
  /** False where the stream is to end here. */
  const see = (frames: readonly Frame[], shown: Buffer[]): boolean => {
    for (const frame of frames) {
      const data = kept === undefined ? frame.data : kept.tell(frame.data, target)
      const seen = data === '' ? undefined : reader.see(frame.event, data)
      const bytes = data === frame.data ? frame.bytes : bytesOf(frame.event, data)
      if (seen === undefined || seen.isShown)
        shown.push(seen?.instead === undefined ? bytes : Buffer.from(seen.instead))
      if (seen === undefined) continue
      if (seen.known !== undefined) used.known(seen.known)
      let goesOn = used.text(seen.text)
      if (seen.usage !== undefined) goesOn = used.usage(seen.usage)
      // Text after what seemed the end was not held: it is none.
      stream.isWhole = seen.isEnd || (stream.isWhole && seen.text === '')
      stream.isFinished = seen.isFinished === true
      if (!goesOn && !stream.isWhole && call.plan.whenSpent === 'end') return false
    }
    return true
  }
  const show = async (shown: readonly Buffer[]): Promise<void> => {
    if (shown.length === 0 || call.gone.aborted) return
    if (!response.write(shown.length === 1 ? shown[0] : Buffer.concat(shown)))
      await drained(response, call.gone, target.idleTimeoutMs).catch(() => {})
  }
  const endHere = async (): Promise<void> => {
    stop.abort(opened.lease.signal.reason)
    response.end(reader.ending())
    await used.count()
    used.cap()
    await opened.end('done')
  }
  try {
    for await (const piece of answer.body) {
      const shown: Buffer[] = []
      const goesOn = see(splitter.push(piece as Buffer), shown)
      await show(shown)
      if (!goesOn) return await endHere()
      if (!stream.isFinished) call.gone.throwIfAborted()
    }
    const left = splitter.rest()
    if (left !== undefined) {
      const shown: Buffer[] = []
      see([left], shown)
      await show(shown)
    }
  } catch (error) {
    if (call.gone.aborted) {
      await used.count()
      return await opened.end('cutOff')
    }
    if (opened.lease.signal.aborted && call.plan.whenSpent === 'end') return await endHere()
    const { failure } =
      error instanceof SluiceError
        ? failureOf(error)
        : badUpstream('upstream_cut', 'the upstream broke off its answer')
    response.end(call.provider.failureInStream(failure))
    await used.count()
    await opened.end('failed')
    stop.abort(error)
    return
  }
  response.end()
  await used.count()
  await opened.end('done')
}

function jsonOf(text: string): Json | undefined {
  try {
    const value: unknown = JSON.parse(text)
    return typeof value === 'object' && value !== null ? (value as Json) : undefined
  } catch {
    return undefined
  }
}
