/**
 * What happens while Sluice is slow or gone: who is let through, and how what they did is told when it is back. Told under
 * the ids of the requests, and only by calls that may be repeated, so that nothing counts twice.
 */
import type { AmountIn, Operation } from '../src/wire.ts'
import { microsOf } from './amounts.ts'
import { isUnavailable, problemFrom, type SluiceError } from './error.ts'
import type { Spool } from './spool.ts'
import { sleep, type Transport, within } from './transport.ts'

/**
 * `closed` lets nobody through. `open` lets everybody through. `bounded` lets each account through for as much as
 * `perAccount` CU, in each process and outage.
 */
export type Unavailability =
  | 'closed'
  | 'open'
  | { readonly mode: 'closed' | 'open' }
  | { readonly mode: 'bounded'; readonly perAccount: AmountIn }

/** A request that was let through without being asked for. */
export interface Pass {
  /** Takes more from the account's bound; false where there is no more, or nobody knows how much more it is. */
  more(micros: bigint | undefined): boolean
  /** It has ended, and cost at most so much. */
  end(micros: bigint | undefined): void
  /** What it did has been told, or is kept: until then there is room for that. */
  leave(): void
}

export interface Outage {
  /** `micros` is the most that the request can cost, where that is known. Undefined where it may not pass. */
  letThrough(how: Unavailability, account: string, micros: bigint | undefined): Pass | undefined
  /** Keeps an operation until it has been told; that of a pass has room. False where there is none: then it is lost. */
  keep(operation: Operation, pass?: Pass): boolean
  /** Sluice has answered: what is kept can be told. */
  answered(): void
  /** Waits until all is told, at most so long; answers whether it was. */
  flush(withinMs: number): Promise<boolean>
  readonly kept: number
  close(): void
}

export interface OutageOptions {
  readonly transport: Transport
  readonly spool: Spool
  readonly maxKept: number
  /** Told of what Sluice would not take, ever: it is not sent again. */
  readonly onLost: ((operation: Operation, error: SluiceError) => void) | undefined
}

/** Operations told in one request, and how long that may take. */
const TOGETHER = 64
const TELL_MS = 5_000
const AGAIN_MS = 500
const PAUSE_MS = 50

/** µCU. Those who were let through in one outage share it. */
interface Tally {
  micros: bigint
}

/** Throws a `RangeError` where a bound is no amount: rather when it is set than when it is needed. */
export function checkUnavailability(how: Unavailability): void {
  if (typeof how !== 'string' && how.mode === 'bounded') microsOf(how.perAccount)
}

export function createOutage({ transport, spool, maxKept, onLost }: OutageOptions): Outage {
  /** What was let through of each account, since all was last well. */
  let tallies = new Map<string, Tally>()
  let passing = 0
  let telling: Promise<void> | undefined
  let timer: ReturnType<typeof setTimeout> | undefined
  let closed = false

  function tell(): Promise<void> {
    clearTimeout(timer)
    timer = undefined
    telling ??= tellAll().finally(() => {
      telling = undefined
      if (spool.size > 0 && !closed) again()
    })
    return telling
  }

  function again(): void {
    timer ??= setTimeout(() => void tell(), AGAIN_MS)
    ;(timer as { unref?: () => void }).unref?.()
  }

  async function tellAll(): Promise<void> {
    while (spool.size > 0) {
      const operations = spool.first(TOGETHER)
      let results: readonly { readonly status: number; readonly body: unknown }[]
      try {
        const body = await transport.send('POST', '/v1/batch', { operations }, { deadlineMs: TELL_MS })
        results = (body as { readonly results: typeof results }).results
      } catch {
        // It stays, and is tried again, also where the whole of it is refused, by a key that was revoked say.
        return
      }
      let told = 0
      for (const { status, body } of results) {
        const error = status === 200 ? undefined : problemFrom(status, body)
        if (error !== undefined && isUnavailable(error)) break
        if (error !== undefined) onLost?.(operations[told] as Operation, error)
        told++
      }
      spool.drop(told)
      if (told < operations.length) return
    }
    over()
  }

  /** The next outage counts anew; what was let through in this one stays within its bound for as long as it runs. */
  function over(): void {
    if (tallies.size > 0) tallies = new Map()
  }

  function pass(tally: Tally, bound: bigint | undefined, taken: bigint): Pass {
    let mine = taken
    let hasLeft = false
    passing++
    function take(micros: bigint): boolean {
      if (bound === undefined) return true
      if (micros > 0n && tally.micros + micros > bound) return false
      tally.micros += micros
      mine += micros
      return true
    }
    return {
      more: (micros) => (micros === undefined ? bound === undefined : take(micros)),
      end(micros) {
        if (micros !== undefined && micros < mine) take(micros - mine)
      },
      leave() {
        if (!hasLeft) passing--
        hasLeft = true
      },
    }
  }

  return {
    letThrough(how, account, micros) {
      const mode = typeof how === 'string' ? how : how.mode
      if (closed || mode === 'closed' || spool.size + passing >= maxKept) return undefined
      if (typeof how === 'string' || how.mode !== 'bounded') return pass({ micros: 0n }, undefined, 0n)
      const bound = microsOf(how.perAccount)
      const tally = tallies.get(account) ?? { micros: 0n }
      if (micros === undefined || tally.micros + micros > bound) return undefined
      tally.micros += micros
      tallies.set(account, tally)
      return pass(tally, bound, micros)
    },
    keep(operation, pass) {
      if (pass === undefined && spool.size + passing >= maxKept) return false
      spool.add(operation)
      again()
      return true
    },
    answered() {
      if (spool.size > 0) void tell()
      else over()
    },
    async flush(withinMs) {
      const until = performance.now() + withinMs
      while (spool.size > 0 && performance.now() < until) {
        // What is on its way may take longer than there is time.
        await within(tell(), until - performance.now())
        if (spool.size > 0) await sleep(Math.min(PAUSE_MS, Math.max(0, until - performance.now())))
      }
      return spool.size === 0
    },
    get kept() {
      return spool.size
    },
    close() {
      closed = true
      clearTimeout(timer)
    },
  }
}
