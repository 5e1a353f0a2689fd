/**
 * The gateway's door: finds what a call is, who makes it and whose it is, and hands it on. Node's own server rather than the
 * framework of `server/`: bodies and answers go through as streams of bytes, and nothing here wants to be routed or validated.
 */
import { createServer, type IncomingMessage, type Server, type ServerResponse } from 'node:http'
import type { Socket } from 'node:net'
import type { Logger } from 'pino'
import type { Caller, Engine } from '../engine.ts'
import { SluiceError } from '../errors.ts'
import { bearer, createKeyring, type Key } from '../keyring.ts'
import type { Subject } from '../wire.ts'
import { createBeside } from './beside/beside.ts'
import { readBody } from './bodies.ts'
import { createCalls } from './calls.ts'
import type { GatewayConfig, PathConfig, PlanConfig } from './config.ts'
import { badRequest, failureOf, notFound, type Told } from './failures.ts'
import { createForward } from './forward.ts'
import { createIds } from './ids.ts'
import { createJobDoor } from './jobs/door.ts'
import { keptBy } from './kept.ts'
import { answerOwn, ownCallOf } from './node.ts'
import { passThrough } from './pass.ts'
import type { Endpoint, Provider } from './provider.ts'
import { openai } from './providers/openai.ts'
import { createUpstream } from './upstream.ts'
import { createWaiting } from './waiting.ts'
import { createWatch, type Tale } from './watch.ts'

export interface GatewayOptions {
  readonly engine: Engine
  readonly config: GatewayConfig
  /** Told of what could never be recorded, and of mistakes of the gateway's own. */
  readonly onFault?: (error: unknown) => void
  /** A line for each call. Absent: nothing is logged. */
  readonly log?: Logger
  /** As the server takes it: here it may see the metrics. */
  readonly adminKey?: string
  /** What else `/metrics` tells: of the engine, where no other door does. */
  readonly moreMetrics?: () => string
}

export interface Gateway {
  readonly server: Server
  /** Serves Envoy over gRPC where the configuration says so; answers on which port. */
  listenGrpc(): Promise<number | undefined>
  /** Refuses what comes, lets what runs end for as long as may be, aborts the rest, and tells what is kept. */
  close(withinMs?: number): Promise<void>
}

const CLOSE_MS = 10_000
const LAST_WORDS_MS = 500
/** A whole head, and a whole request, have to be there within this: nobody holds a connection by sending slowly. */
const HEAD_MS = 10_000
const REQUEST_MS = 120_000
const PLAN_KEPT_MS = 5_000

interface Found {
  readonly provider: Provider
  readonly endpoint: Endpoint
  /** Of a path by the owner's rules. */
  readonly own?: PathConfig
}

/** What a caller that left before the end is counted as, since nothing was answered. */
const LEFT = 499

export function createGateway(options: GatewayOptions): Gateway {
  const { engine, config, log, moreMetrics = () => '' } = options
  const onFault = options.onFault ?? ((error: unknown) => log?.error({ err: error }, 'failed'))
  const keyring = createKeyring(engine, options.adminKey)
  const calls = createCalls(engine, config.onUnavailable, (_operation, error) => onFault(error))
  const waiting = createWaiting({ perAccount: config.waitingPerAccount, inAll: config.waitingInAll })
  const upstreams = new Map([...config.upstreams].map(([name, upstream]) => [name, createUpstream(upstream)]))
  const cut = new AbortController()
  const forward = createForward({ config, upstreams, waiting, cut: cut.signal })
  const watch = createWatch({ waiting, upstreams }, log)
  const jobs = createJobDoor({ engine, config, upstreams, waiting, onFault })
  const find = finder(config)
  const ids = createIds()
  const planOf = plans(engine, config)
  const payer = (key: Key) => ({ account: accountOf(key), subject: subjectOf(key) })
  const beside = createBeside({ engine, keyring, calls, payer, config: config.beside, onFault })
  const open = new Set<Promise<void>>()
  const closing = new AbortController()
  const onClose = new WeakMap<Socket, Set<() => void>>()

  const own = {
    engine,
    keyring,
    isClosing: () => closing.signal.aborted,
    metrics: () => watch.render() + moreMetrics(),
  }

  async function handle(request: IncomingMessage, response: ServerResponse): Promise<void> {
    const url = targetOf(request)
    if (url === undefined)
      return answerFailure(response, openai, badRequest('invalid', 'what is asked for is no address'))
    const ownCall = ownCallOf(request, url.pathname)
    if (ownCall !== undefined) return answerOwn(ownCall, request, response, own)
    const startedAt = performance.now()
    const tale = watch.begin()
    response.once('close', () => {
      const status = response.writableFinished ? response.statusCode : LEFT
      watch.end(tale, status, performance.now() - startedAt)
    })
    return answer(request, response, url, tale)
  }

  async function answer(
    request: IncomingMessage,
    response: ServerResponse,
    url: URL,
    tale: Tale,
  ): Promise<void> {
    const found = find(request, url.pathname)
    const provider = found?.provider ?? openai
    if (found !== undefined) tale.endpoint = found.endpoint.name
    const refuse = (told: Told): void => {
      tale.code = told.failure.code
      answerFailure(response, provider, told)
    }
    if (closing.signal.aborted)
      return refuse(failureOf(new SluiceError('closing', 'The gateway is shutting down.')))
    const gone = new AbortController()
    const leave = (): void => {
      if (!response.writableFinished) gone.abort(new Error('the caller has gone'))
    }
    response.on('close', leave)
    if (beside.isFor(url.pathname)) return beside.answer(request, response, url.pathname, gone.signal)
    // A response that waits behind another on its connection is told nothing when that closes.
    const leaving = onClose.get(request.socket)
    leaving?.add(leave)
    try {
      const key = await keyring.key(secretOf(request, provider))
      tale.key = key.id
      if (found === undefined) return refuse(notFound(`there is no ${request.method} ${url.pathname} here`))
      const caller: Caller = { actor: key.id, subject: key.subject }
      const account = accountOf(key)
      tale.account = account
      const path = `${url.pathname}${url.search}`
      const { endpoint } = found
      const { meter, job } = endpoint
      const owner = { account, subject: subjectOf(key) }
      const kept = endpoint.kept === undefined ? undefined : keptBy(ids, owner, endpoint.kept)
      if (job !== undefined && provider.jobs !== undefined) {
        const told = await jobs.handle(
          {
            ...{ request, response, url, account, subject: subjectOf(key), actor: key.id },
            ...{ plan: await planOf(account), endpoint, kept, jobs: provider.jobs },
            gone: gone.signal,
          },
          job,
        )
        if (told !== undefined) refuse(told)
        return
      }
      if (meter === undefined) {
        const told = await passThrough({
          request,
          response,
          config,
          upstreams,
          provider,
          endpoint,
          path,
          to: found.own?.upstream,
          ...{ account, kept, url },
          gone: gone.signal,
        })
        if (told !== undefined) refuse(told)
        return
      }
      const brought = await readBody(request, endpoint.takes, config.maxBodyBytes)
      if ('failure' in brought) return refuse(brought)
      const told = await forward.metered({
        request,
        response,
        tale,
        account,
        subject: subjectOf(key),
        access: calls.of(caller),
        plan: await planOf(account),
        ...{ provider, endpoint, meter, path, ...brought, gone: gone.signal },
        ...{ route: found.own?.route, kept },
      })
      if (told !== undefined) refuse(told)
    } catch (error) {
      if (gone.signal.aborted) return
      const told = failureOf(error)
      if (told.failure.status === 500) onFault(error)
      refuse(told)
    } finally {
      leaving?.delete(leave)
    }
  }

  const server = createServer(
    {
      headersTimeout: HEAD_MS,
      requestTimeout: REQUEST_MS,
      connectionsCheckingInterval: 5_000,
      keepAliveTimeout: 65_000,
      maxHeaderSize: 32 * 1024,
    },
    (request, response) => {
      const work = handle(request, response)
        .catch(onFault)
        .finally(() => open.delete(work))
      open.add(work)
    },
  )
  server.on('connection', (socket: Socket) => {
    const all = new Set<() => void>()
    onClose.set(socket, all)
    socket.once('close', () => {
      for (const leave of all) leave()
    })
  })
  return {
    server,
    listenGrpc: () => beside.listen(),
    async close(withinMs = CLOSE_MS) {
      closing.abort()
      server.close()
      server.closeIdleConnections()
      let last: ReturnType<typeof setTimeout> | undefined
      const late = setTimeout(() => {
        // Streams are told why they end before their connections do.
        cut.abort(new SluiceError('closing', 'The gateway is shutting down.'))
        jobs.abort()
        last = setTimeout(() => server.closeAllConnections(), LAST_WORDS_MS)
      }, withinMs)
      await Promise.allSettled([...open, beside.close(withinMs)])
      clearTimeout(late)
      clearTimeout(last)
      server.closeAllConnections()
      await jobs.close()
      await calls.close(withinMs)
      await Promise.all([...upstreams.values()].map((upstream) => upstream.close()))
    },
  }
}

/** Where a call is meant to go: `//host/path` is a path as well, and of a whole address only the path counts. */
function targetOf({ url = '/' }: IncomingMessage): URL | undefined {
  const whole = url.startsWith('/') ? `http://gateway${url}` : url
  return /^https?:/i.test(whole) && URL.canParse(whole) ? new URL(whole) : undefined
}

/** A key that decides and meters, and stands for one account: whatever a caller says beside it changes nothing. */
function accountOf({ role, account }: Key): string {
  if (role === 'read') throw new SluiceError('forbidden', 'A key of role read may not do this.')
  if (account === undefined)
    throw new SluiceError('forbidden', 'This key is not bound to an account, so nobody would pay.')
  return account
}

const subjectOf = ({ subject }: Key): Subject | undefined =>
  subject === undefined || Object.keys(subject).length === 0 ? undefined : subject

function secretOf({ headers }: IncomingMessage, { keyHeader }: Provider): string {
  const given = keyHeader === undefined ? undefined : headers[keyHeader]
  return typeof given === 'string' ? bearer(`Bearer ${given}`) : bearer(headers.authorization)
}

/** Which endpoint of a provider that has an upstream a call is. */
function finder(config: GatewayConfig) {
  const providers = [...new Set([...config.upstreams.values()].map(({ provider }) => provider))]
  const all = [
    ...config.paths.map((own) => ({ provider: own.upstream.provider, endpoint: own.endpoint, own })),
    ...providers.flatMap((provider) => provider.endpoints.map((endpoint) => ({ provider, endpoint }))),
  ].map((found: Found) => ({ ...found, path: pathPattern(found.endpoint.path) }))
  return (request: IncomingMessage, pathname: string): Found | undefined => {
    const fits = all.filter(({ endpoint, path }) => endpoint.method === request.method && path.test(pathname))
    const known = fits.find(({ provider }) => provider.isOwn?.(request.headers) === true)
    return fits[0]?.own === undefined ? (known ?? fits[0]) : fits[0]
  }
}

const pathPattern = (path: string): RegExp =>
  new RegExp(
    `^${path
      .split('/')
      .map((part) => (part.startsWith(':') ? '[A-Za-z0-9._~-]{1,256}' : RegExp.escape(part)))
      .join('/')}$`,
  )

/** The rules for an account's plan, looked up only where plans differ. */
function plans(engine: Engine, config: GatewayConfig): (account: string) => Promise<PlanConfig> | PlanConfig {
  if (config.plans.size === 0) return () => config.plan
  const kept = new Map<string, { readonly plan: PlanConfig; readonly until: number }>()
  return async (account) => {
    const known = kept.get(account)
    if (known !== undefined && performance.now() < known.until) return known.plan
    // An account that is not there yet gets what its first call makes of it.
    const name = await engine.account(account).then(
      ({ plan }) => plan,
      () => '',
    )
    const plan = config.plans.get(name) ?? config.plan
    if (kept.size >= 10_000) kept.clear()
    kept.set(account, { plan, until: performance.now() + PLAN_KEPT_MS })
    return plan
  }
}

function answerFailure(response: ServerResponse, provider: Provider, { failure, headers }: Told): void {
  if (response.headersSent || response.destroyed) return void response.destroy()
  const body = JSON.stringify(provider.failure(failure))
  response.writeHead(failure.status, {
    ...headers,
    'content-type': 'application/json',
    'content-length': Buffer.byteLength(body),
    ...(failure.status === 413 && { connection: 'close' }),
  })
  response.end(body)
}
