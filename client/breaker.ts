/**
 * The circuit breaker: after some failures in a row nothing is sent for a while, so that callers need not wait for a
 * deadline each; then one call finds out. States and names as in M. Nygard, "Release It!", 2007.
 */
export interface Breaker {
  /** Whether a call may be sent now. A true answer while it is open makes that call the one that finds out. */
  admits(): boolean
  succeeded(): void
  failed(): void
  /** Milliseconds until a call may find out; 0 where calls are let through. */
  readonly restMs: number
}

export interface BreakerOptions {
  /** Failures in a row after which it opens. */
  readonly failures: number
  /** How long it rests at first; twice as long each time that a call found out in vain, up to `maxRestMs`. */
  readonly restMs: number
  readonly maxRestMs: number
  readonly now: () => number
  readonly random: () => number
}

export function createBreaker({ failures, restMs, maxRestMs, now, random }: BreakerOptions): Breaker {
  let inARow = 0
  let rests = 0
  let openUntil: number | undefined

  return {
    admits() {
      if (openUntil === undefined) return true
      if (now() < openUntil) return false
      // The one that finds out; if its answer is never told, another may after a rest.
      openUntil = now() + restMs
      return true
    },
    succeeded() {
      inARow = 0
      rests = 0
      openUntil = undefined
    },
    failed() {
      inARow++
      if (inARow < failures) return
      const rest = Math.min(maxRestMs, restMs * 2 ** rests)
      rests++
      // Not all clients at the same moment.
      openUntil = now() + rest * (0.5 + random() / 2)
    },
    get restMs() {
      return openUntil === undefined ? 0 : Math.max(0, openUntil - now())
    },
  }
}
