/** Calls that cost nothing: they go through to the first upstream of their provider. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { allOf, jsonIn } from './bodies.ts'
import type { GatewayConfig, UpstreamConfig } from './config.ts'
import type { Told } from './failures.ts'
import { badUpstream, failureOf, tooBig } from './failures.ts'
import { failureText, pipeWhole } from './flow.ts'
import { forCaller, forUpstream } from './headers.ts'
import type { KeptCall } from './kept.ts'
import { BadBody, type Endpoint, type Provider } from './provider.ts'
import type { Upstream } from './upstream.ts'

export interface Passing {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly config: GatewayConfig
  readonly upstreams: ReadonlyMap<string, Upstream>
  readonly provider: Provider
  readonly endpoint: Endpoint
  readonly account: string
  readonly path: string
  /** Where the owner's rule for its path sends it; else to the first of its provider. */
  readonly to: UpstreamConfig | undefined
  /** Where it is about what an upstream keeps: that one is asked. */
  readonly kept?: KeptCall | undefined
  readonly url: URL
  readonly gone: AbortSignal
}

/** Answers what went wrong before anything was sent. */
export async function passThrough(passing: Passing): Promise<Told | undefined> {
  const { request, response, config, upstreams, provider, endpoint, kept, gone } = passing
  const { upstream: to, path } = placeOf(passing)
  const upstream = to === undefined ? undefined : upstreams.get(to.name)
  if (upstream === undefined) return badUpstream('no_route', `nothing serves ${endpoint.name}`)
  const { key, idleTimeoutMs, totalTimeoutMs } = upstream.config
  const tell = kept?.tells === true ? (text: string) => kept.tell(text, upstream.config) : undefined
  const stop = new AbortController()
  const onGone = (): void => stop.abort(gone.reason)
  gone.addEventListener('abort', onGone, { once: true })
  const late = setTimeout(() => stop.abort(new Error('the answer took longer than it may')), totalTimeoutMs)
  try {
    const body = await allOf(request, config.maxBodyBytes)
    if (body === undefined) return tooBig(`a body is at most ${config.maxBodyBytes} bytes`)
    gone.throwIfAborted()
    const answer = await upstream.send({
      account: passing.account,
      method: endpoint.method,
      path,
      headers: { ...forUpstream(request.headers), ...(key !== undefined && provider.authorize(key)) },
      body: body.length === 0 ? undefined : kept?.asks === true ? askOf(kept, body, upstream.config) : body,
      signal: stop.signal,
    })
    const isWell = answer.status >= 200 && answer.status < 300
    const isElsewhere = answer.status === 401 || answer.status === 403 || (!isWell && answer.status < 400)
    const failed = isWell || isElsewhere ? undefined : await failureText(answer, key)
    if (!isWell && failed === undefined) {
      answer.body.on('error', () => {}).destroy()
      return badUpstream('upstream_wrong', 'the upstream refused the gateway')
    }
    response.writeHead(answer.status, forCaller(answer.headers))
    if (failed === undefined)
      await pipeWhole(answer, response, gone, idleTimeoutMs, () => gone.throwIfAborted(), tell)
    else response.end(failed)
    return undefined
  } catch (error) {
    stop.abort(error)
    if (!response.headersSent) return failureOf(error)
    response.destroy()
    return undefined
  } finally {
    clearTimeout(late)
    gone.removeEventListener('abort', onGone)
  }
}

/** Which upstream it goes to, and under which path there. */
function placeOf({ config, provider, endpoint, path, url, kept, to }: Passing) {
  if (to !== undefined) return { upstream: to, path }
  const all = [...config.upstreams.values()].filter((one) => one.provider === provider)
  return (kept === undefined ? undefined : kept.find(endpoint, url, all)) ?? { upstream: all[0], path }
}

function askOf(kept: KeptCall, bytes: Buffer, upstream: UpstreamConfig): string {
  const body = jsonIn(bytes)
  if (body === undefined) throw new BadBody('', 'the body is not a JSON object')
  return JSON.stringify(kept.ask(body, upstream))
}
