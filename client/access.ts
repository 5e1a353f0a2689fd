/** Reserve, run, settle: every way out ends the hold. */
import type {
  AmountIn,
  ChargeAnswer,
  DecisionAnswer,
  ExtendRequest,
  Operation,
  QuantitiesIn,
  ReserveRequest,
  SettleRequest,
} from '../src/wire.ts'
import { amountOf } from './amounts.ts'
import type { Bounds } from './bounds.ts'
import { isUnavailable, SluiceError, wasNeverSent } from './error.ts'
import { createLease, type Growth, type Lease, type LiveLease } from './lease.ts'
import { checkUnavailability, type Outage, type Pass, type Unavailability } from './outage.ts'
import type { Together } from './together.ts'
import { type CallOptions, within } from './transport.ts'

/** As reserve takes it; without an id one is made. */
export type AccessRequest = Omit<ReserveRequest, 'request_id' | 'dry_run'> & { readonly request_id?: string }

/** How a request runs; its deadline is that of each call to Sluice, and its signal gives up the work. */
export interface AccessOptions extends CallOptions {
  /** In place of the client's own. */
  readonly onUnavailable?: Unavailability
  /** How long the work may take, in milliseconds, before its lease is aborted. Absent: as long as it likes. */
  readonly timeoutMs?: number
  /**
   * Of which quantities more is asked for while the work runs. Absent: of all, from three quarters of what is held on. For work whose
   * input is certain, or that something else keeps within its bound.
   */
  readonly growth?: Growth
  /** Told with the settlement, for reports. */
  readonly endpoint?: string
}

/** The work ran, and this is what it answered. */
export interface Granted<T> {
  readonly ok: true
  readonly value: T
  readonly request_id: string
  /** Undefined where Sluice was away. */
  readonly decision: DecisionAnswer | undefined
  /** Undefined where nothing was charged, or where that is told later (`pending`). */
  readonly charge: ChargeAnswer | undefined
  /** Whether the charge is told later, since Sluice is away. */
  readonly pending: boolean
  /** Sluice would not take the settlement, which is therefore not charged. */
  readonly error?: SluiceError
}

/** The work did not run. */
export interface Refused {
  readonly ok: false
  readonly request_id: string
  /**
   * `wait` and `deny` as decided; `done` where this request has run before and is no longer open; `unavailable` where Sluice
   * is away and nobody may pass.
   */
  readonly outcome: 'wait' | 'deny' | 'done' | 'unavailable'
  /** One of docs/reference/outcomes.md where it was decided; else a word for why nobody could. */
  readonly reason: string
  /** When it makes sense to ask again. */
  readonly retryAfterMs: number | undefined
  /** As it was decided; undefined where nobody could. */
  readonly decision: DecisionAnswer | undefined
  /** Why nobody could decide. */
  readonly error: SluiceError | undefined
}

/** What became of a request. */
export type Access<T> = Granted<T> | Refused

/** What `accessOrThrow` throws for a refusal. */
export class AccessRefused extends Error {
  override readonly name = 'AccessRefused'
  readonly refusal: Refused
  constructor(refusal: Refused) {
    super(`${refusal.outcome}: ${refusal.reason}`)
    this.refusal = refusal
  }
}

export interface Accesses {
  access<T>(
    request: AccessRequest,
    work: (lease: Lease) => T | Promise<T>,
    options?: AccessOptions,
  ): Promise<Access<T>>
  /** Aborts all that runs, and waits for its ends; what has not ended within so many milliseconds is ended without it. */
  close(withinMs: number): Promise<void>
  readonly running: number
}

export interface AccessesOptions {
  readonly together: Together
  readonly outage: Outage
  readonly bounds: Bounds
  readonly onUnavailable: Unavailability
  readonly onLost: ((operation: Operation, error: SluiceError) => void) | undefined
}

/** How long the ends of what was left may take to be told; what cannot be told then is kept. */
const ABANDONED_MS = 1_000

/** When work began: by the clock of Sluice, where that is known, and by this process's monotonic one. */
interface Started {
  readonly at: number | undefined
  readonly ran: number
}

export function createAccesses(given: AccessesOptions): Accesses {
  const { together, outage, bounds } = given
  /** What runs, and how its hold is ended without it. */
  const live = new Map<LiveLease, (reason: unknown) => void>()
  /** All calls, those included that are not decided yet. */
  const calls = new Set<Promise<unknown>>()
  let closing: SluiceError | undefined
  /** How far the clock of Sluice is ahead of this process's, as the last decision told it. */
  let aheadMs: number | undefined

  async function decide(
    request: ReserveRequest,
    options: AccessOptions,
  ): Promise<DecisionAnswer | SluiceError> {
    try {
      const answer = (await together.call({ op: 'reserve', ...request }, options)) as DecisionAnswer
      outage.answered()
      if (!answer.replayed) aheadMs = answer.decided_at - Date.now()
      if (answer.outcome === 'allow' || answer.outcome === 'partial') bounds.learn(request, answer.cost)
      return answer
    } catch (error) {
      // It may have been decided all the same: then a hold stands.
      if (!(error instanceof SluiceError)) {
        giveBack(request)
        throw error
      }
      if (!isUnavailable(error)) throw error
      return error
    }
  }

  function giveBack({ request_id, account }: ReserveRequest): void {
    keep({ op: 'release', request_id, account })
  }

  function keep(operation: Operation, pass?: Pass): boolean {
    if (outage.keep(operation, pass)) return true
    given.onLost?.(
      operation,
      new SluiceError({
        code: 'unavailable',
        status: 0,
        detail: 'there is no more room for what could not be told',
      }),
    )
    return false
  }

  function access<T>(
    wanted: AccessRequest,
    work: (lease: Lease) => T | Promise<T>,
    options: AccessOptions = {},
  ): Promise<Access<T>> {
    const call = begin(wanted, work, options)
    const over = (): unknown => calls.delete(call)
    calls.add(call)
    call.then(over, over)
    return call
  }

  async function begin<T>(
    wanted: AccessRequest,
    work: (lease: Lease) => T | Promise<T>,
    options: AccessOptions,
  ): Promise<Access<T>> {
    const request: ReserveRequest = { ...wanted, request_id: wanted.request_id ?? crypto.randomUUID() }
    if (closing !== undefined) throw closing
    if (options.onUnavailable !== undefined) checkUnavailability(options.onUnavailable)
    // Nothing has been asked yet, so there is nothing to give back either.
    options.signal?.throwIfAborted()
    const decided = await decide(request, options)
    if (closing !== undefined) {
      const mayBeHeld =
        decided instanceof SluiceError ? !wasNeverSent(decided) : refusalOf(decided) === undefined
      if (mayBeHeld) giveBack(request)
      throw closing
    }
    if (!(decided instanceof SluiceError)) {
      const refusal = refusalOf(decided)
      return refusal ?? run(request, decided, undefined, work, options)
    }
    const how = options.onUnavailable ?? given.onUnavailable
    const pass = outage.letThrough(how, request.account, bounds.of(request))
    if (pass !== undefined) return run(request, undefined, pass, work, options)
    if (!wasNeverSent(decided)) giveBack(request)
    return {
      ok: false,
      request_id: request.request_id,
      outcome: 'unavailable',
      reason: 'unavailable',
      retryAfterMs: decided.retryAfterMs,
      decision: undefined,
      error: decided,
    }
  }

  async function run<T>(
    request: ReserveRequest,
    decision: DecisionAnswer | undefined,
    pass: Pass | undefined,
    work: (lease: Lease) => T | Promise<T>,
    options: AccessOptions,
  ): Promise<Granted<T>> {
    let taken = bounds.of(request)
    const one = createLease({
      request,
      decision,
      extend: (extend: ExtendRequest) =>
        together.call({ op: 'extend', ...extend }) as Promise<DecisionAnswer>,
      mayUse(used) {
        if (pass === undefined) return true
        const most = costOf(request, used)
        const more = most === undefined || taken === undefined ? undefined : most - taken
        if (more !== undefined && more <= 0n) return true
        if (!pass.more(more)) return false
        taken = most
        return true
      },
      signal: options.signal,
      timeoutMs: options.timeoutMs,
      growth: options.growth,
    })
    const started = { at: startOf(decision), ran: performance.now() }
    const abandoned = new Promise<never>((_, abandon) => live.set(one, abandon))
    // In a turn of its own, so that whoever called has what it was promised when its work begins.
    await undefined
    let failed = true
    try {
      const value = await Promise.race([work(one.lease), abandoned])
      failed = false
      const end = await finish(request, one, pass, started, options, failed)
      return { ok: true, value, request_id: request.request_id, decision, ...end } as const
    } finally {
      if (failed) await finish(request, one, pass, started, options, failed).catch(() => {})
      live.delete(one)
    }
  }

  /**
   * By the clock of Sluice, which refuses what lies in its future, or too far in its past. Of work that began before it was ever heard,
   * nobody knows when that was.
   */
  function startOf(decision: DecisionAnswer | undefined): number | undefined {
    if (decision !== undefined && !decision.replayed) return decision.decided_at
    return aheadMs === undefined ? undefined : Date.now() + aheadMs
  }

  /** The most that what was used can cost. */
  function costOf(
    request: ReserveRequest,
    { quantities, cost }: { readonly quantities?: QuantitiesIn; readonly cost?: AmountIn },
  ): bigint | undefined {
    const { feature, attributes, estimate } = request
    if (cost !== undefined) return bounds.of({ feature, cost })
    return bounds.of({
      feature,
      ...(attributes !== undefined && { attributes }),
      estimate: { ...estimate, ...quantities },
    })
  }

  /** What work that failed has not told, it has not used; of work that succeeded it counts as held, or as asked for. */
  function usageOf(
    request: ReserveRequest,
    { used, lease }: LiveLease,
    failed: boolean,
  ): Pick<SettleRequest, 'usage' | 'cost'> | undefined {
    const { cost, ...told } = used()
    if (cost !== undefined) return { cost }
    // A report of nothing has told nothing.
    const quantities = Object.keys(told.quantities ?? {}).length > 0 ? told.quantities : undefined
    if (failed) return quantities === undefined ? undefined : { usage: quantities }
    const estimate = lease.granted_estimate ?? (lease.local ? request.estimate : undefined)
    if (estimate !== undefined || quantities !== undefined) return { usage: { ...estimate, ...quantities } }
    if (lease.granted !== undefined) return { cost: lease.granted }
    // Nobody has told what the feature's default estimate costs, unless something like it was decided before.
    const micros = bounds.of(request)
    return micros === undefined ? { usage: {} } : { cost: amountOf(micros) }
  }

  async function finish(
    request: ReserveRequest,
    one: LiveLease,
    pass: Pass | undefined,
    started: Started,
    options: AccessOptions,
    failed: boolean,
  ): Promise<Pick<Granted<unknown>, 'charge' | 'pending' | 'error'>> {
    await one.end()
    const usage = usageOf(request, one, failed)
    const operation = exitOf(request, usage, one, started, options)
    try {
      pass?.end(usage === undefined ? 0n : costOf(request, { ...usage, quantities: usage.usage ?? {} }))
      const answer = await together.call(operation, { deadlineMs: options.deadlineMs })
      outage.answered()
      return { charge: usage === undefined ? undefined : (answer as ChargeAnswer), pending: false }
    } catch (error) {
      if (isUnavailable(error)) return { charge: undefined, pending: keep(operation, pass) }
      if (error instanceof SluiceError) {
        given.onLost?.(operation, error)
        return { charge: undefined, pending: false, error }
      }
      throw error
    } finally {
      pass?.leave()
    }
  }

  return {
    access,
    async close(withinMs) {
      closing ??= new SluiceError({ code: 'closing', status: 0, detail: 'this client has been closed' })
      for (const one of live.keys()) one.stop(closing)
      const ends = Promise.allSettled([...calls])
      if (await within(ends, withinMs)) return
      for (const abandon of live.values()) abandon(closing)
      await within(ends, ABANDONED_MS)
    },
    get running() {
      return live.size
    },
  }
}

function exitOf(
  { request_id, account, subject, feature, attributes }: ReserveRequest,
  usage: Pick<SettleRequest, 'usage' | 'cost'> | undefined,
  { used }: LiveLease,
  started: Started,
  { endpoint }: AccessOptions,
): Operation {
  if (usage === undefined) return { op: 'release', request_id, account }
  return {
    op: 'settle',
    request_id,
    account,
    // Named, so that it is charged as well where the reserve never arrived.
    feature,
    ...(subject !== undefined && { subject }),
    ...(attributes !== undefined && { attributes }),
    ...usage,
    ...(used().estimated === true && { estimated: true }),
    ...(endpoint !== undefined && { endpoint }),
    ...(started.at !== undefined && { started_at: started.at }),
    duration_ms: Math.round(performance.now() - started.ran),
  }
}

function refusalOf(decision: DecisionAnswer): Refused | undefined {
  const { outcome, request_id, reason, state, replayed, retry_after_ms } = decision
  const isDone = replayed && state !== 'open'
  if (!isDone && (outcome === 'allow' || outcome === 'partial')) return undefined
  return {
    ok: false,
    request_id,
    outcome: isDone ? 'done' : (outcome as 'wait' | 'deny'),
    reason: isDone ? state : reason,
    retryAfterMs: retry_after_ms,
    decision,
    error: undefined,
  }
}
