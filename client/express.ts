/** Express middleware, and that of anything else with Node's requests and responses. */
import { type Admitted, enter, type GuardOptions } from './guard.ts'
import type { Lease } from './lease.ts'

export type { Admitted, GuardOptions } from './guard.ts'

/** As much of Node's `ServerResponse` as is used here. */
export interface NodeResponse {
  statusCode: number
  readonly headersSent: boolean
  readonly writableFinished: boolean
  /** Its connection has ended. */
  readonly destroyed: boolean
  setHeader(name: string, value: string): unknown
  end(body?: string): unknown
  once(event: 'close', listener: () => void): unknown
}

/** What every request of Node has; who names the type of the request has all of it: `request: (req: express.Request) => …`. */
export interface NodeRequest {
  readonly headers: Readonly<Record<string, string | string[] | undefined>>
  readonly url?: string | undefined
  readonly method?: string | undefined
}

/** The lease of a request; undefined where it passed unmetered. */
export const leaseOf = (request: object): Lease | undefined => leases.get(request)
const leases = new WeakMap<object, Lease>()

/** A middleware that lets a request in and meters it, or refuses it. `leaseOf(request)` is the request's lease. */
export function sluice<Request extends object = NodeRequest, Response extends NodeResponse = NodeResponse>(
  options: GuardOptions<Request>,
): (request: Request, response: Response, next: (error?: unknown) => void) => void {
  return (request, response, next) => {
    enter(request, options).then((entry) => {
      if (!entry.pass) return send(response, entry.refusal)
      if (entry.admitted !== undefined && !follow(request, response, entry.admitted)) return
      next()
    }, next)
  }
}

/**
 * For doors to other frameworks: meters a request that was let in until its response is sent whole or its connection ends. False where
 * nobody waits for it any more: then the hold is given back, and there is nothing to do.
 */
export function follow(request: object, response: NodeResponse, admitted: Admitted): boolean {
  leases.set(request, admitted.lease)
  if (response.destroyed) {
    // It closed while Sluice was asked, and does not close again.
    void admitted.end({ status: response.statusCode, cutOff: true })
    return false
  }
  setHeaders(response, admitted.headers)
  response.once('close', () => {
    void admitted.end({ status: response.statusCode, cutOff: !response.writableFinished })
  })
  return true
}

function send(
  response: NodeResponse,
  refusal: { status: number; headers: Readonly<Record<string, string>>; body: string },
): void {
  response.statusCode = refusal.status
  setHeaders(response, refusal.headers)
  response.end(refusal.body)
}

function setHeaders(response: NodeResponse, headers: Readonly<Record<string, string>>): void {
  for (const [name, value] of Object.entries(headers)) response.setHeader(name, value)
}
