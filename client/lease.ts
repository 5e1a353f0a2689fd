/** A request that has been let in, while its work runs: it grows and renews its hold by itself, and says when to stop. */
import type {
  Amount,
  AmountIn,
  DecisionAnswer,
  ExtendRequest,
  Quantities,
  QuantitiesIn,
  ReserveRequest,
} from '../src/wire.ts'
import { microsOf } from './amounts.ts'
import { isUnavailable, SluiceError } from './error.ts'
import { MAX_TIMER_MS } from './transport.ts'

/** What the work may use, and how it tells what it has used. */
export interface Lease {
  readonly request_id: string
  /** As it was let in; undefined where Sluice was away. */
  readonly decision: DecisionAnswer | undefined
  /** `partial`: less was granted than was asked for; see `granted`. */
  readonly outcome: 'allow' | 'partial'
  /** CU that are held; undefined where Sluice was away and let nobody decide. */
  readonly granted: Amount | undefined
  /** The same by quantity, where it was asked for by quantity. */
  readonly granted_estimate: Quantities | undefined
  /** Aborted when the work must stop: nothing more is granted, the hold is lost, the time is over, or the caller gave up. */
  readonly signal: AbortSignal
  /** Let through while Sluice was away: what it uses is told later. */
  readonly local: boolean
  /**
   * Tells what has been used so far, in all and by quantity; what it names replaces what was told before. Cheap: call it as often
   * as you like. The hold is extended before it runs out. False when the work must stop. Throws a `RangeError` for what is no
   * decimal from 0 on with at most six places.
   */
  report(used: QuantitiesIn, how?: Reported): boolean
  /** The same for work that knows its cost. */
  reportCost(used: AmountIn, how?: Reported): boolean
}

/** How what is reported came to be known. */
export interface Reported {
  /** This was counted or guessed: the charge says so, unless a later report without it replaces this one. */
  readonly estimated?: boolean
}

export interface LeaseOptions {
  readonly request: ReserveRequest
  readonly decision: DecisionAnswer | undefined
  readonly extend: (request: ExtendRequest) => Promise<DecisionAnswer>
  /** Where Sluice is away: whether the local bound has room for as much in all. */
  readonly mayUse: (used: { readonly quantities?: QuantitiesIn; readonly cost?: AmountIn }) => boolean
  readonly signal: AbortSignal | undefined
  readonly timeoutMs: number | undefined
  readonly growth?: Growth | undefined
}

/** Of which quantities more is asked for while the work runs, and from which share of what is held of them on. */
export interface Growth {
  readonly of: readonly string[]
  readonly from: number
}

export interface LiveLease {
  readonly lease: Lease
  /** What was reported: none, quantities or a cost. */
  used(): { readonly quantities?: QuantitiesIn; readonly cost?: AmountIn; readonly estimated?: true }
  stop(reason: unknown): void
  /** Lets go of timers and listeners. What is on its way goes on: its end is awaited. */
  end(): Promise<void>
}

/** From this share of what is granted on more is asked for, and this many times what is used. */
const ASK_FROM = 0.75
const ASK_TIMES = 1.5
/** CU: the least amount there is. */
const LEAST_MORE = 0.000001
/** The hold is renewed when this share of its time is over. */
const RENEW_AT = 0.5
const RENEW_AGAIN_MS = 1_000

export function createLease(options: LeaseOptions): LiveLease {
  const { request, decision, signal: given, growth } = options
  const controller = new AbortController()
  let granted = decision?.granted
  let grantedEstimate = estimateOf(decision, request.estimate)
  let quantities: Record<string, AmountIn> | undefined
  let cost: AmountIn | undefined
  let estimated = false
  let step = 0
  let unsure: ExtendRequest | undefined
  let asking: Promise<void> | undefined
  let refused = false
  let ended = false
  let renewal: ReturnType<typeof setTimeout> | undefined
  let growing: ReturnType<typeof setTimeout> | undefined
  let expiresAt: number | undefined

  const stop = (reason: unknown): void => {
    if (!controller.signal.aborted) controller.abort(reason)
  }
  const onAbort = (): void => stop(given?.reason)
  given?.addEventListener('abort', onAbort, { once: true })
  if (given?.aborted) onAbort()
  const timeout =
    options.timeoutMs === undefined
      ? undefined
      : setTimeout(
          () => stop(new DOMException('the work has taken longer than it may', 'TimeoutError')),
          Math.min(options.timeoutMs, MAX_TIMER_MS),
        )

  function renewLater(answer: DecisionAnswer): void {
    if (answer.expires_at === null) return
    const left = answer.expires_at - answer.decided_at
    expiresAt = performance.now() + left
    schedule(left * RENEW_AT)
  }
  function schedule(ms: number): void {
    clearTimeout(renewal)
    if (ended) return
    renewal = setTimeout(() => void ask({}), Math.min(ms, MAX_TIMER_MS))
    // Work that waits for nothing must not keep its process alive.
    ;(renewal as { unref?: () => void }).unref?.()
  }
  if (decision !== undefined) renewLater(decision)

  /** One extend after the other: their steps are counted. */
  function ask(what: Pick<ExtendRequest, 'estimate' | 'cost' | 'min_cost'>): Promise<void> {
    asking ??= extend(what).finally(() => {
      asking = undefined
    })
    return asking
  }

  async function extend(what: Pick<ExtendRequest, 'estimate' | 'cost' | 'min_cost'>): Promise<void> {
    // A step that may have been taken is sent again as it was.
    unsure ??= {
      request_id: request.request_id,
      account: request.account,
      step: step + 1,
      ...what,
      // As long as it was to live at first: the plan's own length may be much longer.
      ...(request.ttl_ms !== undefined && { ttl_ms: request.ttl_ms }),
      ...(quantities !== undefined && { used: quantities }),
    }
    const asked = unsure
    try {
      const answer = await options.extend(asked)
      unsure = undefined
      if (answer.reason === 'hold_closed') return stop(lost(answer))
      const isGranted = answer.outcome === 'allow' || answer.outcome === 'partial'
      // A refused extend leaves the hold as it was, and is no step.
      if (isGranted) {
        step = asked.step
        granted = answer.granted
        grantedEstimate = estimateOf(answer, asked.estimate) ?? grantedEstimate
        lease.granted = granted
        lease.granted_estimate = grantedEstimate as Quantities | undefined
        renewLater(answer)
      } else schedule(RENEW_AGAIN_MS)
      if (asked.estimate !== undefined || asked.cost !== undefined) {
        refused = answer.outcome !== 'allow'
        checkRoom()
      }
    } catch (error) {
      if (!isUnavailable(error)) {
        unsure = undefined
        return stop(error)
      }
      if (expiresAt !== undefined && performance.now() > expiresAt)
        return stop(
          new SluiceError({ code: 'unavailable', status: 0, detail: 'the hold could not be renewed' }),
        )
      schedule(RENEW_AGAIN_MS)
    }
  }

  const grows = (name: string): boolean => growth === undefined || growth.of.includes(name)

  /** How much of what is granted is used: 1 is all of it; undefined where that cannot be told. */
  function share(): number | undefined {
    if (cost !== undefined) return granted === undefined ? undefined : Number(cost) / Number(granted)
    if (quantities === undefined || grantedEstimate === undefined) return undefined
    let most = 0
    for (const [name, used] of Object.entries(quantities)) {
      if (!grows(name)) continue
      const of = Number(Object.hasOwn(grantedEstimate, name) ? grantedEstimate[name] : 0)
      if (Number(used) > 0) most = Math.max(most, of > 0 ? Number(used) / of : Number.POSITIVE_INFINITY)
    }
    return most
  }

  function checkRoom(): void {
    if (refused && (share() ?? 0) >= 1) stop(spent(granted))
  }

  function reported(): boolean {
    if (ended || controller.signal.aborted) return false
    if (decision === undefined) {
      if (!options.mayUse(usedSoFar())) stop(spent(undefined))
    } else {
      const used = share()
      if (used !== undefined && used >= (growth?.from ?? ASK_FROM) && !refused) growSoon()
      checkRoom()
    }
    return !controller.signal.aborted
  }

  /** In a moment: work that has told all that it used, and ends with that, needs no more. */
  function growSoon(): void {
    growing ??= setTimeout(() => {
      growing = undefined
      if (!ended) void ask(wanted())
    }, 0)
  }

  /** More than is used, and never less than is held; whatever is more than is held is welcome. */
  function wanted(): Pick<ExtendRequest, 'estimate' | 'cost' | 'min_cost'> {
    const min_cost = decimal(Number(granted) + LEAST_MORE)
    if (cost !== undefined)
      return { cost: decimal(Math.max(Number(cost) * ASK_TIMES, Number(min_cost))), min_cost }
    const estimate: Record<string, AmountIn> = { ...grantedEstimate }
    for (const [name, used] of Object.entries(quantities ?? {})) {
      if (!grows(name)) continue
      const held = Number(Object.hasOwn(estimate, name) ? estimate[name] : 0)
      if (Number(used) >= held * ASK_FROM) estimate[name] = decimal(Math.max(Number(used) * ASK_TIMES, held))
    }
    return { estimate, min_cost }
  }

  const usedSoFar = () => ({
    ...(quantities !== undefined && { quantities }),
    ...(cost !== undefined && { cost }),
    ...(estimated && { estimated: true as const }),
  })

  // Its fields are set anew as more is granted. Getters would be shorter, but each object literal with one gets a hidden class of its
  // own, which V8 keeps among old things, and with it all that the call has made.
  const lease: { -readonly [Field in keyof Lease]: Lease[Field] } = {
    request_id: request.request_id,
    decision,
    outcome: decision?.outcome === 'partial' ? 'partial' : 'allow',
    granted,
    granted_estimate: grantedEstimate as Quantities | undefined,
    signal: controller.signal,
    local: decision === undefined,
    report(used, how) {
      Object.values(used).forEach(microsOf)
      estimated = how?.estimated === true
      quantities = { ...quantities, ...used }
      return reported()
    },
    reportCost(used, how) {
      microsOf(used)
      estimated = how?.estimated === true
      cost = used
      return reported()
    },
  }
  return {
    lease,
    used: usedSoFar,
    stop,
    async end() {
      ended = true
      clearTimeout(renewal)
      clearTimeout(growing)
      clearTimeout(timeout)
      given?.removeEventListener('abort', onAbort)
      await asking
    },
  }
}

/** What is held as quantities: all that was asked for, or the part of it that was granted. */
function estimateOf(
  answer: DecisionAnswer | undefined,
  asked: QuantitiesIn | undefined,
): QuantitiesIn | undefined {
  return answer?.granted_estimate ?? (answer?.outcome === 'partial' ? undefined : asked)
}

/** At most six places, as the server takes them. */
const decimal = (value: number): string => (Math.ceil(value * 1e6) / 1e6).toFixed(6).replace(/\.?0+$/, '')

const lost = (answer: DecisionAnswer): SluiceError =>
  new SluiceError({
    code: 'hold_closed',
    status: 200,
    detail: `the hold of ${answer.request_id} has been closed (${answer.state})`,
  })
const spent = (granted: Amount | undefined): SluiceError =>
  new SluiceError({
    code: 'spent',
    status: 200,
    detail:
      granted === undefined
        ? 'what may be used while Sluice is away has been used'
        : `all of the ${granted} CU that were granted has been used, and no more is`,
  })
