/**
 * What tests of the gateway share: an engine, a gateway before it, and an upstream that speaks a provider's wire format and says
 * what a test tells it to. All are real servers of this process; the accounts and keys are made as an owner makes them.
 */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders, type Server, type ServerResponse } from 'node:http'
import type { AddressInfo } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { createEngine, type Engine } from '../src/engine.ts'
import { createGateway, type Gateway } from '../src/gateway/app.ts'
import { readConfig } from '../src/gateway/config.ts'
import type { PolicyDocument } from '../src/policy/schema.ts'
import { memoryStore } from '../src/store/memory.ts'
import type { Store } from '../src/store.ts'
import type { AccountView, Subject, UsageRow } from '../src/wire.ts'

/** The upstream's key, which must be seen there and nowhere else. */
export const UPSTREAM_KEY = 'upstream-secret-0123456789'

const callsPer = (per: '1h' | '1s') => ({
  guards: [{ name: 'calls', rate: { meter: 'requests', limit: 1, per } }],
  waterfall: [{ credits: ['purchased'] as const }],
})

/** Input costs 1, from the cache a tenth, output 10; plans are one but for their names, and `slow` and `brisk`
 * let one call an hour and a second. */
export const GATEWAY_POLICY: PolicyDocument = {
  features: {
    chat: {
      rate_card: [{ per_unit: { input_tokens: 1, cached_input_tokens: '0.1', output_tokens: 10 } }],
    },
  },
  plans: {
    plan: { waterfall: [{ credits: ['purchased'] }] },
    debt: { waterfall: [{ credits: ['purchased'] }] },
    slow: callsPer('1h'),
    brisk: callsPer('1s'),
  },
}

/** A call as the upstream got it. */
export interface Got {
  readonly method: string
  readonly path: string
  readonly headers: IncomingHttpHeaders
  readonly bytes: Buffer
  /** Undefined where it is no JSON object. */
  readonly body: Record<string, unknown>
}
export type Script = (got: Got, response: ServerResponse) => void | Promise<void>

export interface ScriptedUpstream {
  readonly url: string
  /** All calls so far, oldest first. */
  readonly got: readonly Got[]
  /** Answers the next call that has no answer yet; each script answers one. */
  next(script: Script): void
  /** Calls that run: a connection that was closed runs no more. */
  readonly running: number
  close(): Promise<void>
}

export interface GatewaySceneOptions {
  readonly policy?: PolicyDocument
  /** In YAML, beside `upstreams`; `routes` is one for everything where it has none. */
  readonly config?: string
  /** Upstreams by name, and the provider of each: all of them are the one that a test scripts. `main` alone where it is absent. */
  readonly upstreams?: Readonly<Record<string, string>>
  /** Fields of the upstream, in YAML: `, idle_timeout: 1s`. */
  readonly upstream?: string
  readonly store?: Store
  /** What the upstream answers where no script waits. */
  readonly usual: Script
}

export interface GatewayScene {
  readonly engine: Engine
  readonly gateway: Gateway
  /** Without a path. */
  readonly url: string
  readonly upstream: ScriptedUpstream
  /** What the gateway could not make sense of: a test that does not look at it wants none. */
  readonly faults: unknown[]
  /** An account with that many CU, and the secret of a key for it. */
  account(id: string, credits: string, more?: { plan?: string; subject?: Subject }): Promise<string>
  /** The account once all its calls have ended. */
  settled(account: string): Promise<AccountView>
  /** Usage over all once all calls have ended. */
  used(account: string): Promise<Pick<UsageRow, 'charged' | 'quantities' | 'requests'> | undefined>
  /** The books must be right then. */
  close(): Promise<void>
}

export async function openGateway(options: GatewaySceneOptions): Promise<GatewayScene> {
  const upstream = await openUpstream(options.usual)
  const faults: unknown[] = []
  const engine = await createEngine({
    store: options.store ?? memoryStore(),
    policy: options.policy ?? GATEWAY_POLICY,
  })
  const written = options.config ?? ''
  const config = readConfig(
    [
      'upstreams:',
      ...Object.entries(options.upstreams ?? { main: 'openai' }).map(
        ([name, provider]) =>
          `  ${name}: { provider: ${provider}, url: '${upstream.url}', key_env: KEY${options.upstream ?? ''} }`,
      ),
      /^routes:/m.test(written) ? '' : 'routes: [{ upstream: main, feature: chat }]',
      written,
    ].join('\n'),
    { KEY: UPSTREAM_KEY },
  )
  const gateway = createGateway({ engine, config, onFault: (error) => faults.push(error) })
  const url = await listen(gateway.server)
  async function settled(account: string): Promise<AccountView> {
    return until(
      () => engine.account(account),
      ({ open_holds }) => open_holds === 0,
    )
  }
  return {
    engine,
    gateway,
    url,
    upstream,
    faults,
    async account(id, credits, { plan = 'plan', subject } = {}) {
      await engine.createAccount({ id, plan })
      if (credits !== '0') await engine.grant(id, { id: 'g', kind: 'purchased', amount: credits })
      const { secret } = await engine.createKey({
        ...{ id: `key-${id}`, role: 'meter', account: id },
        ...(subject !== undefined && { subject }),
      })
      return secret
    },
    settled,
    async used(account) {
      await settled(account)
      const [row] = await engine.usage(account, { from: 0, to: Date.now() + 1_000 })
      if (row === undefined) return undefined
      const { charged, quantities, requests } = row
      return { charged, quantities, requests }
    },
    async close() {
      await gateway.close(100)
      const wrong: unknown[] = []
      await engine.audit({ onDisagreement: (one) => wrong.push(one) })
      await engine.close()
      await upstream.close()
      assert.deepEqual([faults, wrong], [[], []])
    },
  }
}

export async function openUpstream(usual: Script): Promise<ScriptedUpstream> {
  const got: Got[] = []
  const scripts: Script[] = []
  let running = 0
  const server = createServer(async (request, response) => {
    running++
    response.on('close', () => running--)
    const pieces: Buffer[] = []
    try {
      for await (const piece of request) pieces.push(piece as Buffer)
    } catch {
      return
    }
    const bytes = Buffer.concat(pieces)
    const one: Got = {
      ...{ method: request.method ?? '', path: request.url ?? '', headers: request.headers },
      ...{ bytes, body: jsonOf(bytes.toString()) },
    }
    got.push(one)
    await (scripts.shift() ?? usual)(one, response)
  })
  return {
    url: await listen(server),
    got,
    next: (script) => void scripts.push(script),
    get running() {
      return running
    },
    async close() {
      server.close()
      server.closeAllConnections()
    },
  }
}

async function listen(server: Server): Promise<string> {
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`
}

/** Asks until the answer fits. */
export async function until<T>(ask: () => T | Promise<T>, fits: (answer: T) => boolean): Promise<T> {
  for (;;) {
    const answer = await ask()
    if (fits(answer)) return answer
    await pause(5)
  }
}

/** An answer in JSON. */
export function say(response: ServerResponse, body: unknown, status = 200, headers: object = {}): void {
  response.writeHead(status, { 'content-type': 'application/json', ...headers })
  response.end(JSON.stringify(body))
}

/** A stream of events: each is written when it is told. */
export function events(response: ServerResponse) {
  response.writeHead(200, { 'content-type': 'text/event-stream' })
  return {
    /** With the name of the event, where the format has names. */
    tell(data: unknown, event?: string): void {
      const text = typeof data === 'string' ? data : JSON.stringify(data)
      response.write(`${event === undefined ? '' : `event: ${event}\n`}data: ${text}\n\n`)
    },
    end: () => void response.end(),
  }
}

function jsonOf(text: string): Record<string, unknown> {
  try {
    return JSON.parse(text)
  } catch {
    return {}
  }
}
