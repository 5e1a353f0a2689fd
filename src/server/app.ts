/**
 * The door: HTTP in front of an engine. It checks that a body has the right shape and that a key may do this, passes the
 * call on, and puts the answer or the problem on the wire. It decides nothing, and it never answers 429.
 */
import { randomBytes } from 'node:crypto'
import { STATUS_CODES } from 'node:http'
import type { Socket } from 'node:net'
import type { TypeBoxTypeProvider } from '@fastify/type-provider-typebox'
import Fastify, { type FastifyReply, type FastifyRequest } from 'fastify'
import type { Logger } from 'pino'
import type { Engine } from '../engine.ts'
import { SluiceError } from '../errors.ts'
import type { Key } from '../keyring.ts'
import { createAuth, permit } from './auth.ts'
import type { App, Call, Door, TestClock } from './door.ts'
import { parseJsonStrictly } from './json.ts'
import { logRequest } from './log.ts'
import { createMetrics } from './metrics.ts'
import { describe } from './openapi.ts'
import { asSluiceError, PROBLEM_TYPE, problemOf, sendProblem } from './problem.ts'
import { routes } from './routes/all.ts'
import { ANSWERS } from './schemas/answers.ts'
import { REQUESTS } from './schemas/requests.ts'
import { ID_PATTERN } from './schemas/shapes.ts'

export interface AppOptions {
  readonly engine: Engine
  /** A key of role admin that is not kept in the store, for automation. */
  readonly adminKey?: string
  /** Serves `PUT /v1/test-clock`. */
  readonly testClock?: TestClock
  /** How often a stream of events shows that it lives, and its key is looked at again: 15 s. */
  readonly heartbeatMs?: number
  /** Absent: nothing is logged. */
  readonly log?: Logger
}

const HEARTBEAT_MS = 15_000
const MIB = 1024 * 1024
const ID = new RegExp(ID_PATTERN)

/**
 * Makes the app. It listens nowhere yet: `serve.ts` does that, and tests send requests through `inject`. The engine
 * stays the caller's to close.
 */
export function createApp({ engine, adminKey, testClock, heartbeatMs = HEARTBEAT_MS, log }: AppOptions): App {
  const app: App = Fastify({
    // The framework would make and check a logger for each request; the line of a request is written by a hook.
    logger: false,
    bodyLimit: MIB,
    routerOptions: { maxParamLength: 1024 },
    genReqId: requestIds(),
    return503OnClosing: false,
    clientErrorHandler: refuseMalformed,
    // What is refused before a route is found has met no hook yet.
    frameworkErrors: (error, request, reply) =>
      void sendProblem(reply.header('x-request-id', request.id), asSluiceError(error)),
    ajv: {
      customOptions: {
        coerceTypes: false,
        removeAdditional: false,
        useDefaults: false,
        allErrors: false,
        allowUnionTypes: true,
        verbose: true,
      },
    },
  }).withTypeProvider<TypeBoxTypeProvider>()
  const door: Door = {
    engine,
    auth: createAuth(engine, adminKey),
    metrics: createMetrics(engine),
    testClock,
    heartbeatMs,
    log,
  }

  // The platform's own writer takes 2.4 µs for a decision, one generated from the schema 3.2: what leaves is held to the
  // contract by tests instead.
  app.setSerializerCompiler(() => JSON.stringify)
  parseJsonStrictly(app as never)
  for (const schema of [...REQUESTS, ...ANSWERS]) app.addSchema(schema)
  answerProblems(app, log)
  followRequests(app, door, log)
  guard(app, door)
  describe(app)
  routes(app, door)
  return app
}

/** Each call is open only to the keys it names: the guard is laid before every route that says what it is. */
function guard(app: App, { auth }: Door): void {
  app.addHook('onRoute', (route) => {
    const call = route.config?.call
    if (call === undefined || call.scope === 'open') return
    const ofAccount = route.url.startsWith('/v1/accounts/:id')
    const own = route.onRequest ?? []
    route.onRequest = [guardOf(call, ofAccount), ...(Array.isArray(own) ? own : [own])] as never
  })

  function guardOf({ roles, scope }: Call, ofAccount: boolean) {
    const admit = (request: FastifyRequest, key: Key): void => {
      request.key = key
      const account = ofAccount ? (request.params as { id: string }).id : undefined
      permit(key, roles, scope, account)
      // The schema holds the path against the form of ids only after this.
      if (account !== undefined && ID.test(account)) request.tale.account = account
    }
    return (request: FastifyRequest, _reply: FastifyReply, done: (error?: Error) => void): void => {
      try {
        const key = auth.key(request.headers.authorization)
        if (key instanceof Promise) key.then((found) => admit(request, found)).then(() => done(), done)
        else {
          admit(request, key)
          done()
        }
      } catch (error) {
        done(error as Error)
      }
    }
  }
}

/** Request ids, closing, metrics and the log. */
function followRequests(app: App, { metrics }: Door, log: Logger | undefined): void {
  let closing = false
  // What a line has is named in `logRequest`: nothing in it has to be looked for and replaced.
  const lines = log?.child({}, { redact: [] })
  app.decorateRequest('key', null as never)
  app.decorateRequest('tale', null as never)
  app.addHook('onRequest', (request, reply, done) => {
    request.tale = {}
    reply.header('x-request-id', request.id).header('cache-control', 'no-store')
    if (!closing) return done()
    done(
      new SluiceError('closing', 'The node is shutting down.', {
        remedy: 'Try another node, or this one later.',
        retryAfterMs: 1000,
      }),
    )
  })
  app.addHook('onResponse', (request, reply, done) => {
    metrics.observe(request.method, request.routeOptions.url ?? 'none', reply.statusCode, reply.elapsedTime)
    if (lines !== undefined) logRequest(lines, request, reply)
    done()
  })
  app.addHook('preClose', (done) => {
    closing = true
    done()
  })
  app.addHook('onClose', async () => metrics.close())
}

function answerProblems(app: App, log: Logger | undefined): void {
  app.setErrorHandler((thrown, request, reply) => {
    const error = asSluiceError(thrown)
    request.tale.code = error.code
    if (error.code === 'internal') log?.error({ id: request.id, err: error.detail.cause ?? error }, 'failed')
    return sendProblem(reply, error)
  })
  app.setNotFoundHandler((request, reply) => {
    request.tale.code = 'not_found'
    const remedy = 'Check method and path: /openapi.json has all calls.'
    return sendProblem(reply, new SluiceError('not_found', 'There is no such call.', { path: '', remedy }))
  })
}

/** The caller's `x-request-id` where it has the form of an id, else one of our own. */
function requestIds(): (request: { headers: Record<string, unknown> }) => string {
  const own = randomBytes(6).toString('base64url')
  let count = 0
  return ({ headers }) => {
    const given = headers['x-request-id']
    if (typeof given === 'string' && ID.test(given)) return given
    count += 1
    return `${own}-${count.toString(36)}`
  }
}

/** What is not HTTP gets a problem too, as far as the connection still takes one. */
function refuseMalformed(error: NodeJS.ErrnoException, socket: Socket): void {
  if (error.code === 'ECONNRESET' || socket.destroyed) return
  const tooBig = error.code === 'HPE_HEADER_OVERFLOW'
  const problem = problemOf(
    tooBig
      ? new SluiceError('too_big', 'The header fields are too large.', {
          path: '',
          remedy: 'Send at most 16 KiB of them.',
        })
      : new SluiceError('invalid', 'The request is not HTTP/1.1, or it came too slowly.', {
          path: '',
          remedy: 'Send a complete HTTP/1.1 request.',
        }),
  )
  const body = JSON.stringify(problem)
  const head = `HTTP/1.1 ${problem.status} ${STATUS_CODES[problem.status]}\r\ncontent-type: ${PROBLEM_TYPE}\r\n`
  if (socket.writable)
    socket.write(`${head}content-length: ${Buffer.byteLength(body)}\r\nconnection: close\r\n\r\n${body}`)
  socket.destroySoon()
}
