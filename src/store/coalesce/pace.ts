export interface Pace {
  readonly perSecond: number
  note(operations: number): void
  drainMs(waiting: number): number
}

/** How fast operations are committed, as a moving mean over some tens of commits. */
export function createPace(): Pace {
  let perMs = 0
  let lastAt: number | undefined
  return {
    get perSecond() {
      return perMs * 1000
    },
    note(operations) {
      const at = performance.now()
      // A pause without work says nothing about the pace, so that a gap counts as a tenth of a second at most.
      const elapsed = lastAt === undefined ? 10 : Math.min(100, Math.max(0.5, at - lastAt))
      perMs = perMs === 0 ? operations / elapsed : perMs + (operations / elapsed - perMs) * 0.1
      lastAt = at
    },
    drainMs(waiting) {
      if (perMs === 0) return 1_000
      return Math.round(Math.min(30_000, Math.max(50, waiting / 2 / perMs)))
    },
  }
}
