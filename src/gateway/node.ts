/** The gateway's own calls, as the server has them for itself: whether it lives, whether it may be sent calls, and its metrics. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Engine } from '../engine.ts'
import { SluiceError } from '../errors.ts'
import { bearer, type Keyring } from '../keyring.ts'
import { failureOf } from './failures.ts'

export interface OwnCalls {
  readonly engine: Engine
  readonly keyring: Keyring
  readonly isClosing: () => boolean
  readonly metrics: () => string
}

/** The name of the call of the gateway's own that this is, if it is one. */
export function ownCallOf({ method }: IncomingMessage, pathname: string): OwnCall | undefined {
  return method === 'GET' || method === 'HEAD' ? OWN[pathname] : undefined
}

export type OwnCall = 'live' | 'ready' | 'metrics'
const OWN: Readonly<Record<string, OwnCall | undefined>> = Object.assign(Object.create(null), {
  '/healthz': 'live',
  '/readyz': 'ready',
  '/metrics': 'metrics',
})

export async function answerOwn(
  call: OwnCall,
  request: IncomingMessage,
  response: ServerResponse,
  { engine, keyring, isClosing, metrics }: OwnCalls,
): Promise<void> {
  if (call === 'live') return send(response, 200, { status: 'ok' })
  if (call === 'ready') {
    const { ready, problem = 'unavailable' } = engine.health()
    if (ready && !isClosing()) return send(response, 200, { status: 'ready' })
    return send(response, 503, { status: isClosing() ? 'closing' : problem })
  }
  try {
    const { role, account } = await keyring.key(bearer(request.headers.authorization))
    if (role === 'meter' || account !== undefined)
      throw new SluiceError(
        'forbidden',
        'Metrics are for a key of role read or admin that is bound to no account.',
      )
    response.writeHead(200, { 'content-type': 'text/plain; version=0.0.4; charset=utf-8' })
    response.end(metrics())
  } catch (error) {
    const { failure } = failureOf(error)
    send(response, failure.status, { code: failure.code, detail: failure.message })
  }
}

function send(response: ServerResponse, status: number, body: object): void {
  response.writeHead(status, { 'content-type': 'application/json', 'cache-control': 'no-store' })
  response.end(JSON.stringify(body))
}
