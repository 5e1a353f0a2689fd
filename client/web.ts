/** Handlers of standard `Request` and `Response`: Next.js route handlers, Bun, Deno, workers. */
import type { Refused } from './access.ts'
import { type Admitted, endedBy, enter, type GuardOptions, refusalOf } from './guard.ts'
import type { Lease } from './lease.ts'
import { watched } from './watched.ts'

export type { Admitted, GuardOptions } from './guard.ts'

/** Whatever a framework passes besides the request goes through as it is. */
export type Handler<Asked extends Request, Rest extends readonly unknown[]> = (
  request: Asked,
  ...rest: Rest
) => Response | Promise<Response>

/** What a guard is asked about. */
export interface WebContext<Asked extends Request = Request, Rest extends readonly unknown[] = []> {
  /** To look into its body, `clone()` it first: the handler reads it, too. */
  readonly request: Asked
  /** What the framework passes besides, such as the `{ params }` of Next.js. */
  readonly rest: Rest
}

/** The lease of a request that a guarded handler is working on; undefined where it passed unmetered. */
export const leaseOf = (request: Request): Lease | undefined => leases.get(request)
const leases = new WeakMap<Request, Lease>()

/**
 * Guards a handler. The response is metered until its body has been sent whole; a body that is cut off is charged with
 * what was reported until then.
 */
export function guarded<Asked extends Request, Rest extends readonly unknown[]>(
  options: GuardOptions<WebContext<Asked, Rest>>,
  handler: Handler<Asked, Rest>,
): (request: Asked, ...rest: Rest) => Promise<Response> {
  return async (request, ...rest) => {
    const entry = await enter({ request, rest }, endedBy(options, request.signal))
    if (!entry.pass) {
      const { status, headers, body } = entry.refusal
      return new Response(body, { status, headers })
    }
    const { admitted } = entry
    if (admitted === undefined) return handler(request, ...rest)
    leases.set(request, admitted.lease)
    let response: Response
    try {
      response = await handler(request, ...rest)
    } catch (error) {
      await admitted.end({ status: 500, cutOff: true })
      throw error
    }
    return metered(request, response, admitted)
  }
}

/** A refusal as the guards answer one, for handlers that ask for themselves: `AccessRefused` has it, and so has `access`. */
export function refusalResponse(refused: Refused): Response {
  const { status, headers, body } = refusalOf(refused)
  return new Response(body, { status, headers })
}

/** For doors to other frameworks: the same response, which tells when it has ended. */
export async function metered(
  { method }: Request,
  response: Response,
  admitted: Admitted,
): Promise<Response> {
  const { status, statusText, body } = response
  const headers = new Headers(response.headers)
  for (const [name, value] of Object.entries(admitted.headers)) headers.set(name, value)
  // Who asks for the head alone never reads the body: frameworks drop it, and nothing would tell of its end.
  const isHead = method === 'HEAD'
  if (isHead) await body?.cancel().catch(() => {})
  if (body === null || isHead) {
    await admitted.end({ status, cutOff: false })
    return new Response(null, { status, statusText, headers })
  }
  const sent = watched(
    body,
    () => {},
    (how) => admitted.end({ status, cutOff: how !== 'done' }),
  )
  return new Response(sent, { status, statusText, headers })
}
