/** What the gateway is for proxies that carry the traffic themselves: an authority that they ask. */
import type { IncomingMessage, ServerResponse } from 'node:http'
import type { Engine } from '../../engine.ts'
import type { Keyring } from '../../keyring.ts'
import type { ChargeAnswer } from '../../wire.ts'
import type { Calls } from '../calls.ts'
import type { BesideConfig } from './config.ts'
import { answerQuestion, MANNERS } from './forward-auth.ts'
import { createGate, type Payer } from './gate.ts'
import type { GrpcServer } from './grpc.ts'
import { createRateLimit } from './rate-limit.ts'
import { readReport, settleReported } from './report.ts'
import { refusal, type Turned, thrown } from './verdict.ts'

export interface BesideOptions {
  readonly engine: Engine
  readonly keyring: Keyring
  readonly calls: Calls
  readonly payer: Payer
  readonly config: BesideConfig
  readonly onFault: (error: unknown) => void
}

export interface Beside {
  /** True where the address is one of its own; it answers then. */
  isFor(pathname: string): boolean
  answer(
    request: IncomingMessage,
    response: ServerResponse,
    pathname: string,
    gone: AbortSignal,
  ): Promise<void>
  /** Serves Envoy, where the configuration says so; answers on which port. */
  listen(): Promise<number | undefined>
  close(withinMs: number): Promise<void>
}

const USAGE = '/forward-auth/usage'

export function createBeside(options: BesideOptions): Beside {
  const { engine, keyring, config, onFault } = options
  const gate = config.forwardAuth && createGate({ ...options, config: config.forwardAuth })
  const limiter = config.rateLimit && createRateLimit({ ...options, config: config.rateLimit })
  let grpc: GrpcServer | undefined

  async function reported(request: IncomingMessage): Promise<ChargeAnswer | Turned> {
    if (request.method !== 'POST') return refusal(405, 'not_found', 'send a POST', { allow: 'POST' })
    const { authorization } = request.headers
    return settleReported({ engine, keyring, authorization, body: await readReport(request) })
  }

  async function report(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const answer = await reported(request).catch((error: unknown) => {
      const turned = thrown(error)
      if (turned.code === 'internal') onFault(error)
      return turned
    })
    if ('kind' in answer) send(response, answer.status, answer.fields, answer.body)
    else send(response, 200, { 'content-type': 'application/json' }, JSON.stringify(answer))
  }

  return {
    isFor: (pathname) => gate !== undefined && (MANNERS.has(pathname) || pathname === USAGE),
    async answer(request, response, pathname, gone) {
      const manner = MANNERS.get(pathname)
      if (manner === undefined || gate === undefined) await report(request, response)
      else await answerQuestion(gate, manner, request, response, gone)
    },
    async listen() {
      if (config.grpc === undefined) return undefined
      // Loaded where it is wanted: it and the protos take 0.2 s.
      const { createGrpc } = await import('./grpc.ts')
      grpc = createGrpc({ gate, limiter, onFault })
      return grpc.listen(config.grpc.host, config.grpc.port)
    },
    close: async (withinMs) => grpc?.close(withinMs),
  }
}

function send(
  response: ServerResponse,
  status: number,
  fields: Readonly<Record<string, string>>,
  body: string,
): void {
  if (response.destroyed) return
  response.writeHead(status, { ...fields, 'content-length': Buffer.byteLength(body) }).end(body)
}
