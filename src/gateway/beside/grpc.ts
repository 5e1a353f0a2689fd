/**
 * Envoy's two services over gRPC, from its published protos. A refusal is an answer; where nothing was decided the call fails, so
 * that Envoy's own `failure_mode_deny` and `failure_mode_allow` say who passes, as they do where nobody answers.
 */
import { fileURLToPath } from 'node:url'
// gRPC's own implementation for Node; its loader reads the protos as they were published, without generated code.
import * as grpc from '@grpc/grpc-js'
import { loadSync, type ServiceDefinition } from '@grpc/proto-loader'
import { type CheckRequest, checkAnswer, questionOf } from './ext-authz.ts'
import type { Gate } from './gate.ts'
import type { RateLimit } from './rate-limit.ts'
import { type RateLimitRequest, rateLimitAnswer } from './rls.ts'
import type { Verdict } from './verdict.ts'

export interface GrpcOptions {
  readonly gate: Gate | undefined
  readonly limiter: RateLimit | undefined
  readonly onFault: (error: unknown) => void
}

export interface GrpcServer {
  /** Answers on which port. Rejects where that cannot be had. */
  listen(host: string, port: number): Promise<number>
  /** Lets calls end for as long as may be, and cuts off the rest. */
  close(withinMs: number): Promise<void>
}

const PROTOS = fileURLToPath(new URL('./protos', import.meta.url))
const FILES = ['envoy/service/ratelimit/v3/rls.proto', 'envoy/service/auth/v3/external_auth.proto']
const MAX_BYTES = 256 * 1024

/** Both services, as the published files define them. */
export function envoyServices(): {
  readonly rateLimit: ServiceDefinition
  readonly authorization: ServiceDefinition
} {
  const all = loadSync(FILES, { includeDirs: [PROTOS], keepCase: true, defaults: true, longs: Number })
  return {
    rateLimit: all['envoy.service.ratelimit.v3.RateLimitService'] as ServiceDefinition,
    authorization: all['envoy.service.auth.v3.Authorization'] as ServiceDefinition,
  }
}

export function createGrpc({ gate, limiter, onFault }: GrpcOptions): GrpcServer {
  const server = new grpc.Server({ 'grpc.max_receive_message_length': MAX_BYTES })
  const { rateLimit, authorization } = envoyServices()
  if (limiter !== undefined)
    server.addService(rateLimit, {
      ShouldRateLimit: unary<RateLimitRequest>(async ({ domain, descriptors, hits_addend }, gone) => {
        const verdicts = await limiter.ask(
          domain,
          descriptors.map(({ entries }) => entries),
          hits_addend === 0 ? 1 : hits_addend,
          gone,
        )
        return rateLimitAnswer(verdicts, descriptors.length)
      }),
    })
  if (gate !== undefined)
    server.addService(authorization, {
      Check: unary<CheckRequest>(async (request, gone) =>
        checkAnswer(await gate.ask(questionOf(request), gone), gate.keyHeader),
      ),
    })

  /** `work` answers a message, or what could not be decided. */
  function unary<Request>(work: (request: Request, gone: AbortSignal) => Promise<object | Verdict>) {
    return (call: grpc.ServerUnaryCall<Request, object>, done: grpc.sendUnaryData<object>): void => {
      const gone = new AbortController()
      call.on('cancelled', () => gone.abort(new Error('the caller has gone')))
      work(call.request, gone.signal).then(
        (answer) => {
          if (!('kind' in answer)) return done(null, answer)
          done({ code: grpc.status.UNAVAILABLE, details: 'code' in answer ? answer.code : 'unavailable' })
        },
        (error: unknown) => {
          onFault(error)
          done({ code: grpc.status.INTERNAL, details: 'internal' })
        },
      )
    }
  }

  return {
    listen: (host, port) =>
      new Promise((resolve, reject) => {
        const address = `${host.includes(':') ? `[${host}]` : host}:${port}`
        server.bindAsync(address, grpc.ServerCredentials.createInsecure(), (error, bound) =>
          error === null ? resolve(bound) : reject(error),
        )
      }),
    close: (withinMs) =>
      new Promise((resolve) => {
        const late = setTimeout(() => server.forceShutdown(), withinMs)
        server.tryShutdown(() => {
          clearTimeout(late)
          resolve()
        })
      }),
  }
}
