/**
 * Time in a replay. What is to happen lies in one queue by instant of the trace; the clock below it is the store's.
 *
 * At full speed time goes in steps: the clock is set to the end of a step, everything that falls into it happens at once,
 * and the next step begins when all of it has been answered. So a replay gives the same outcomes on any machine, however
 * fast. At a given speed time runs by itself, and things happen when they are due.
 */
import type { Millis } from '../../units.ts'

export interface Happening {
  readonly at: Millis
  /** Orders what is at the same instant. */
  readonly order: number
  readonly run: () => Promise<void>
}

export interface Agenda {
  add(happening: Happening): void
  readonly next: Happening | undefined
  take(): Happening | undefined
}

/** A binary heap by instant, then by order. */
export function createAgenda(): Agenda {
  const heap: Happening[] = []
  const before = (a: Happening | undefined, b: Happening | undefined): boolean =>
    a !== undefined && b !== undefined && (a.at < b.at || (a.at === b.at && a.order < b.order))

  function swap(i: number, j: number): void {
    ;[heap[i], heap[j]] = [heap[j] as Happening, heap[i] as Happening]
  }
  return {
    add(happening) {
      heap.push(happening)
      let at = heap.length - 1
      while (at > 0 && before(heap[at], heap[(at - 1) >> 1])) {
        swap(at, (at - 1) >> 1)
        at = (at - 1) >> 1
      }
    },
    get next() {
      return heap[0]
    },
    take() {
      const [first] = heap
      const last = heap.pop()
      if (heap.length === 0 || last === undefined) return first
      heap[0] = last
      for (let at = 0; ; ) {
        const left = 2 * at + 1
        const child = before(heap[left + 1], heap[left]) ? left + 1 : left
        if (!before(heap[child], heap[at])) return first
        swap(at, child)
        at = child
      }
    },
  }
}

export interface Timeline {
  /** The store's clock. */
  readonly now: () => Millis
  readonly rule: string
  /** Runs everything, with what is added meanwhile. `arrival` gives the next request of the trace, until there is none. */
  run(agenda: Agenda, arrival: () => Promise<Happening | undefined>): Promise<void>
}

export interface TimelineOptions {
  readonly startAt: Millis
  /** Operations in flight at once. */
  readonly concurrency: number
  /** The length of a step at full speed. */
  readonly stepMs: Millis
}

/** As fast as it goes. */
export function fullSpeed({ startAt, concurrency, stepMs }: TimelineOptions): Timeline {
  let now = startAt
  return {
    now: () => now,
    rule: `trace time, in steps of ${stepMs} ms`,
    async run(agenda, arrival) {
      let coming = await arrival()
      for (;;) {
        const next = Math.min(
          coming?.at ?? Number.POSITIVE_INFINITY,
          agenda.next?.at ?? Number.POSITIVE_INFINITY,
        )
        if (next === Number.POSITIVE_INFINITY) return
        const end = Math.max(now, Math.ceil(next / stepMs) * stepMs)
        now = end
        while (coming !== undefined && coming.at <= end) {
          agenda.add(coming)
          coming = await arrival()
        }
        const due: Happening[] = []
        while (agenda.next !== undefined && agenda.next.at <= end) due.push(agenda.take() as Happening)
        await runAll(due, concurrency)
      }
    },
  }
}

/** In the order given, at most so many at once. */
async function runAll(due: readonly Happening[], concurrency: number): Promise<void> {
  let at = 0
  const worker = async (): Promise<void> => {
    for (let happening = due[at++]; happening !== undefined; happening = due[at++]) await happening.run()
  }
  await Promise.all(Array.from({ length: Math.min(concurrency, due.length) }, worker))
}

const pause = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))
/** What is added while nothing is due is seen at the latest after this. */
const LOOK_EVERY_MS = 20

/** `factor` times as fast as it was. */
export function paced({ startAt, concurrency }: TimelineOptions, factor: number): Timeline {
  let begun: number | undefined
  const now = (): Millis =>
    begun === undefined ? startAt : Math.floor(startAt + (performance.now() - begun) * factor)
  return {
    now,
    rule: factor === 1 ? 'real time' : `real time, ${factor} times as fast`,
    async run(agenda, arrival) {
      begun = performance.now()
      const inFlight = new Set<Promise<void>>()
      let failure: { readonly error: unknown } | undefined
      let coming = await arrival()
      while (coming !== undefined || agenda.next !== undefined || inFlight.size > 0) {
        if (failure !== undefined) throw failure.error
        while (coming !== undefined && coming.at <= now()) {
          agenda.add(coming)
          coming = await arrival()
        }
        if (inFlight.size >= concurrency) await Promise.race(inFlight)
        else if (agenda.next !== undefined && agenda.next.at <= now()) {
          const running = (agenda.take() as Happening).run().catch((error: unknown) => {
            failure = { error }
          })
          inFlight.add(running)
          running.finally(() => inFlight.delete(running))
        } else {
          const next = Math.min(
            coming?.at ?? Number.POSITIVE_INFINITY,
            agenda.next?.at ?? Number.POSITIVE_INFINITY,
          )
          await pause(Math.min(LOOK_EVERY_MS, Math.max(1, (next - now()) / factor)))
        }
      }
      if (failure !== undefined) throw failure.error
    },
  }
}
