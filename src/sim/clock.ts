/** A clock that only its owner moves, after XState's `SimulatedClock`. */
import type { Millis } from '../units.ts'

export interface SettableClock {
  /** Hand this to a store: `memoryStore({ now: clock.now })`. */
  readonly now: () => Millis
  /** Moves to an instant; back as well, because clocks do that too. */
  set(at: Millis): void
  advance(byMs: Millis): void
}

export function settableClock(startAt: Millis): SettableClock {
  let at = startAt
  return {
    now: () => at,
    set(to) {
      at = to
    },
    advance(byMs) {
      at += byMs
    },
  }
}
