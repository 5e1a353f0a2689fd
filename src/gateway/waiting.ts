/**
 * Waiting instead of refusing: calls that are told `wait`, and for no longer than may be, stand in a row of their own for each
 * account and subject. The first of a row asks again; the others wait for it, so that nobody overtakes and nobody asks in vain.
 */
import { setTimeout as sleep } from 'node:timers/promises'
import type { Millis } from '../units.ts'

export interface Waiting {
  readonly size: number
  /** Something was given back to the account: whoever waits for it may ask at once. */
  wake(account: string): void
  /**
   * Runs `ask` again until it answers that it no longer waits, or until the time is over; answers what it answered last.
   * Undefined where there is no room to wait. Rejects with the signal's reason.
   */
  stand<T>(one: Standing<T>): Promise<T | undefined>
}

export interface Standing<T> {
  readonly account: string
  /** Who stands in one row. */
  readonly row: string
  readonly first: T
  /** How long the answer says to wait; undefined where it does not, so that waiting is over. */
  waitMs(answer: T): Millis | undefined
  readonly ask: () => Promise<T>
  readonly mostMs: Millis
  readonly signal: AbortSignal
}

export interface WaitingOptions {
  readonly perAccount: number
  readonly inAll: number
}

/** Between two questions of a row, however early the answer says that it may be asked. */
const LEAST_PAUSE_MS = 20

export function createWaiting({ perAccount, inAll }: WaitingOptions): Waiting {
  const counts = new Map<string, number>()
  const rows = new Map<string, (() => void)[]>()
  const sleepers = new Map<string, Set<() => void>>()
  let size = 0

  function count(account: string, by: 1 | -1): void {
    const now = (counts.get(account) ?? 0) + by
    if (now === 0) counts.delete(account)
    else counts.set(account, now)
    size += by
  }

  /** Waits until everybody before has left the row. */
  async function stepUp(row: string, signal: AbortSignal): Promise<() => void> {
    const queue = rows.get(row)
    const leave = (): void => {
      const next = rows.get(row)?.shift()
      if (next === undefined) rows.delete(row)
      else next()
    }
    if (queue === undefined) {
      rows.set(row, [])
      return leave
    }
    const turn = Promise.withResolvers<void>()
    queue.push(turn.resolve)
    const abort = (): void => {
      const place = queue.indexOf(turn.resolve)
      if (place !== -1) queue.splice(place, 1)
      turn.reject(signal.reason)
    }
    signal.addEventListener('abort', abort, { once: true })
    try {
      await turn.promise
    } finally {
      signal.removeEventListener('abort', abort)
    }
    return leave
  }

  async function rest(account: string, ms: Millis, signal: AbortSignal): Promise<void> {
    const early = new AbortController()
    const wake = (): void => early.abort()
    const all = sleepers.getOrInsertComputed(account, () => new Set())
    all.add(wake)
    try {
      await sleep(ms, undefined, { signal: AbortSignal.any([signal, early.signal]) }).catch(() => {})
      signal.throwIfAborted()
      // However often it is woken, it does not ask without pause.
      if (early.signal.aborted) await sleep(Math.min(ms, LEAST_PAUSE_MS), undefined, { signal })
    } finally {
      all.delete(wake)
      if (all.size === 0) sleepers.delete(account)
    }
  }

  return {
    get size() {
      return size
    },
    wake(account) {
      for (const wake of sleepers.get(account) ?? []) wake()
    },
    async stand({ account, row, first, waitMs, ask, mostMs, signal }) {
      if (size >= inAll || (counts.get(account) ?? 0) >= perAccount) return undefined
      count(account, 1)
      const until = performance.now() + mostMs
      const over = AbortSignal.any([signal, AbortSignal.timeout(mostMs)])
      let answer = first
      let leave: (() => void) | undefined
      try {
        leave = await stepUp(row, over)
        for (;;) {
          const wait = waitMs(answer)
          if (wait === undefined || performance.now() + wait > until) return answer
          await rest(account, Math.max(wait, LEAST_PAUSE_MS), over)
          answer = await ask()
        }
      } catch (error) {
        signal.throwIfAborted()
        if (over.aborted) return answer
        throw error
      } finally {
        leave?.()
        count(account, -1)
      }
    },
  }
}
