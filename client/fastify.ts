/** A Fastify hook: `app.addHook('preHandler', sluice({ … }))`, for one route, a plugin's, or all. */
import { follow, leaseOf, type NodeRequest, type NodeResponse } from './express.ts'
import { enter, type GuardOptions } from './guard.ts'

export type { GuardOptions } from './guard.ts'
export { leaseOf, type NodeRequest, type NodeResponse }

/** As much of Fastify's `Reply` as is used here. */
export interface FastifyReplyLike {
  readonly raw: NodeResponse
  code(status: number): unknown
  headers(values: Record<string, string>): unknown
  send(body: string): unknown
  /** Nothing is sent any more. */
  hijack(): unknown
}

/** A hook that lets a request in and meters it, or refuses it. `leaseOf(request)` is the request's lease. */
export function sluice<Request extends object = NodeRequest>(
  options: GuardOptions<Request>,
): (request: Request, reply: FastifyReplyLike) => Promise<unknown> {
  return async (request, reply) => {
    const entry = await enter(request, options)
    if (entry.pass) {
      if (entry.admitted === undefined) return undefined
      reply.headers({ ...entry.admitted.headers })
      if (follow(request, reply.raw, { ...entry.admitted, headers: {} })) return undefined
      reply.hijack()
      return reply
    }
    const { status, headers, body } = entry.refusal
    reply.code(status)
    reply.headers({ ...headers })
    reply.send(body)
    return reply
  }
}
