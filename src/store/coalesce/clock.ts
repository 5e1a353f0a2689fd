import type { Millis } from '../../units.ts'

/** A difference that no drift and no pause explains. */
export const JUMP_MS: Millis = 60_000

/** The two clocks of this node that a store's clock is held against, both in milliseconds. */
export interface NodeClocks {
  readonly wall: () => Millis
  readonly monotonic: () => number
}

export interface ClockTrust {
  /** Whether a reading of the store's clock, taken just now, can be believed. */
  check(storeAt: Millis): boolean
  /** Takes a reading for the truth. */
  accept(storeAt: Millis): void
  readonly suspect: boolean
}

/**
 * Watches a store's clock. Since the last reading that was believed, its elapsed time must agree within a minute with
 * the node's wall clock or its monotonic clock. One of the two is enough: the wall clock alone moves when an operator
 * sets the node's time, the monotonic clock alone stands still while a machine sleeps. Each believed reading is the
 * base of the next, so that slow drift never adds up to a jump.
 */
export function watchClock(clocks: NodeClocks): ClockTrust {
  let base: { readonly store: Millis; readonly wall: Millis; readonly monotonic: number } | undefined
  let suspect = false

  const accept = (storeAt: Millis): void => {
    base = { store: storeAt, wall: clocks.wall(), monotonic: clocks.monotonic() }
    suspect = false
  }
  return {
    accept,
    check(storeAt) {
      if (base !== undefined) {
        const elapsed = storeAt - base.store
        const offWall = Math.abs(elapsed - (clocks.wall() - base.wall))
        const offMonotonic = Math.abs(elapsed - (clocks.monotonic() - base.monotonic))
        suspect = offWall > JUMP_MS && offMonotonic > JUMP_MS
        if (suspect) return false
      }
      accept(storeAt)
      return true
    },
    get suspect() {
      return suspect
    },
  }
}
