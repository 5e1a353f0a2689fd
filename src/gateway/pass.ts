/** Calls that cost nothing: they go through to the first upstream of their provider. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import { allOf } from './bodies.ts'
import type { GatewayConfig, UpstreamConfig } from './config.ts'
import type { Told } from './failures.ts'
import { badUpstream, failureOf, tooBig } from './failures.ts'
import { failureText, pipeWhole } from './flow.ts'
import { forCaller, forUpstream } from './headers.ts'
import type { Endpoint, Provider } from './provider.ts'
import type { Upstream } from './upstream.ts'

export interface Passing {
  readonly request: IncomingMessage
  readonly response: ServerResponse
  readonly config: GatewayConfig
  readonly upstreams: ReadonlyMap<string, Upstream>
  readonly provider: Provider
  readonly endpoint: Endpoint
  readonly path: string
  /** Where the owner's rule for its path sends it; else to the first of its provider. */
  readonly to: UpstreamConfig | undefined
  readonly gone: AbortSignal
}

/** Answers what went wrong before anything was sent. */
export async function passThrough(passing: Passing): Promise<Told | undefined> {
  const { request, response, config, upstreams, provider, endpoint, path, gone } = passing
  const upstream =
    passing.to === undefined
      ? [...upstreams.values()].find((one) => one.config.provider === provider)
      : upstreams.get(passing.to.name)
  if (upstream === undefined) return badUpstream('no_route', `nothing serves ${endpoint.name}`)
  const { key, idleTimeoutMs, totalTimeoutMs } = upstream.config
  const stop = new AbortController()
  const onGone = (): void => stop.abort(gone.reason)
  gone.addEventListener('abort', onGone, { once: true })
  const late = setTimeout(() => stop.abort(new Error('the answer took longer than it may')), totalTimeoutMs)
  try {
    const body = await allOf(request, config.maxBodyBytes)
    if (body === undefined) return tooBig(`a body is at most ${config.maxBodyBytes} bytes`)
    gone.throwIfAborted()
    const answer = await upstream.send({
      method: endpoint.method,
      path,
      headers: { ...forUpstream(request.headers), ...(key !== undefined && provider.authorize(key)) },
      body: body.length === 0 ? undefined : body,
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
      await pipeWhole(answer, response, gone, idleTimeoutMs, () => gone.throwIfAborted())
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
