/** Hono middleware. */
import { endedBy, enter, type GuardOptions } from './guard.ts'
import type { Lease } from './lease.ts'
import { metered } from './web.ts'

export type { GuardOptions } from './guard.ts'

/** As much of Hono's `Context` as is used here, or by those who map a request, so that no version of it is needed. */
export interface HonoContext {
  readonly req: {
    readonly raw: Request
    readonly path: string
    header(name: string): string | undefined
    query(name: string): string | undefined
    param(name: string): string | undefined
  }
  res: Response
  set(key: 'lease', value: Lease): void
}

/**
 * A middleware that lets a request in and meters it, or refuses it. `c.get('lease')` is the request's lease, where it was not let
 * through unmetered.
 */
export function sluice<Context extends HonoContext>(
  options: GuardOptions<Context>,
): (context: Context, next: () => Promise<void>) => Promise<Response | undefined> {
  return async (context, next) => {
    const entry = await enter(context, endedBy(options, context.req.raw.signal))
    if (!entry.pass) {
      const { status, headers, body } = entry.refusal
      return new Response(body, { status, headers })
    }
    if (entry.admitted === undefined) {
      await next()
      return undefined
    }
    context.set('lease', entry.admitted.lease)
    try {
      await next()
    } catch (error) {
      await entry.admitted.end({ status: 500, cutOff: true })
      throw error
    }
    context.res = await metered(context.req.raw, context.res, entry.admitted)
    return undefined
  }
}
