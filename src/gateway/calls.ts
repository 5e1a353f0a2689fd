/** The engine of this process in the place of the server that a client asks: no wire between, the same answers and errors. */
import { createAccesses } from '../../client/access.ts'
import { type Bounds, createBounds } from '../../client/bounds.ts'
import type { Client } from '../../client/client.ts'
import { problemFrom } from '../../client/error.ts'
import { createOutage, type Outage, type Unavailability } from '../../client/outage.ts'
import { memorySpool } from '../../client/spool.ts'
import type { Caller, Engine } from '../engine.ts'
import { ERRORS, SluiceError } from '../errors.ts'
import type { Operation, QuantitiesIn } from '../wire.ts'

export interface Calls {
  /** What a caller's requests are let in by. */
  of(caller: Caller): Pick<Client, 'access'>
  readonly running: number
  /** Aborts what runs, and tells what is kept, at most so long. */
  close(withinMs: number): Promise<void>
}

/** Operations kept while the store is away. */
const MAX_KEPT = 100_000
const MAX_CALLERS = 10_000
/** What is told later was done by keys that may be gone by then. */
const LATER: Caller = { actor: 'gateway' }

export function createCalls(
  engine: Engine,
  onUnavailable: Unavailability,
  onLost: (operation: Operation, error: Error) => void,
): Calls {
  const bounds: Bounds = createBounds()
  const outage: Outage = createOutage({
    transport: {
      async send(_method, _path, body) {
        const { operations } = body as { readonly operations: readonly Operation[] }
        return { results: await Promise.all(operations.map((one) => resultOf(engine, one))) }
      },
    },
    spool: memorySpool(),
    maxKept: MAX_KEPT,
    onLost,
  })
  const callers = new Map<string, ReturnType<typeof createAccesses>>()

  function made(caller: Caller) {
    // A gateway names all that a call may use: what the policy has no price for costs nothing.
    const asks: Caller = { ...caller, unpriced: 'free' }
    const together = { call: (operation: Operation) => run(engine, operation, asks) }
    return createAccesses({ together, outage, bounds, onUnavailable, onLost })
  }

  return {
    of(caller) {
      const known = callers.get(caller.actor)
      if (known !== undefined) return known
      if (callers.size >= MAX_CALLERS)
        for (const [actor, accesses] of callers) if (accesses.running === 0) callers.delete(actor)
      const accesses = made(caller)
      callers.set(caller.actor, accesses)
      return accesses
    },
    get running() {
      return [...callers.values()].reduce((sum, { running }) => sum + running, 0)
    },
    async close(withinMs) {
      await Promise.all([...callers.values()].map((accesses) => accesses.close(withinMs)))
      await outage.flush(withinMs)
      outage.close()
    },
  }
}

async function run(engine: Engine, operation: Operation, caller: Caller): Promise<unknown> {
  try {
    return await tell(engine, operation, caller)
  } catch (error) {
    throw problemFrom(...problemOf(error))
  }
}

type Call = (request: unknown, caller: Caller) => Promise<unknown>

/** Quantities of none say nothing. */
function tell(engine: Engine, { op, ...request }: Operation, caller: Caller): Promise<unknown> {
  const { usage } = request as { readonly usage?: QuantitiesIn }
  const told =
    usage === undefined
      ? request
      : {
          ...request,
          usage: Object.fromEntries(Object.entries(usage).filter(([, used]) => Number(used) > 0)),
        }
  return (engine[op] as Call)(told, caller)
}

/** One of several that are told together. */
const resultOf = (engine: Engine, operation: Operation) =>
  tell(engine, operation, LATER).then(
    (body) => ({ status: 200, body }),
    (error: unknown) => {
      const [status, body] = problemOf(error)
      return { status, body }
    },
  )

/** As the server would have told it. */
function problemOf(error: unknown): [status: number, body: object] {
  if (!(error instanceof SluiceError)) return [500, { code: 'internal', detail: String(error) }]
  const { status } = ERRORS[error.code]
  const { path, remedy, retryAfterMs, first } = error.detail
  return [
    status,
    {
      code: error.code,
      detail: error.message,
      ...(path !== undefined && { path }),
      ...(remedy !== undefined && { remedy }),
      ...(retryAfterMs !== undefined && { retry_after_ms: retryAfterMs }),
      ...(first !== undefined && { first }),
    },
  ]
}
