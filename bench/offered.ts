/**
 * Operations offered at fixed times, however long others take: a slow answer holds back nothing, and what waits to be sent
 * waits on the clock of its latency. So a pause is seen by all who would have come during it (no coordinated omission).
 */
import type { Marks } from './contestant.ts'

export interface Pair {
  reserve(): Promise<void>
  settle(): Promise<void>
}

/** A task lasts this long: the settle of a pair is due so long after its reserve. */
const TASK_MS = 100
const TICK_MS = 1

/** Latencies of the operations of so many pairs a second, each from the time when it was due. */
export async function offer(seconds: number, pairsPerSecond: number, begin: () => Pair): Promise<number[]> {
  const count = Math.ceil(seconds * pairsPerSecond)
  const between = 1_000 / pairsPerSecond
  const latencies: number[] = []
  const reserved: { readonly pair: Pair; readonly done: Promise<void> }[] = []
  const settled: Promise<void>[] = []
  const startedAt = performance.now()

  async function timed(dueAt: number, work: Promise<void>): Promise<void> {
    await work
    latencies.push(performance.now() - dueAt)
  }
  function send(): void {
    const passed = performance.now() - startedAt
    while (reserved.length < count && reserved.length * between <= passed) {
      const pair = begin()
      const done = timed(startedAt + reserved.length * between, pair.reserve())
      reserved.push({ pair, done })
    }
    while (settled.length < reserved.length && settled.length * between + TASK_MS <= passed) {
      const { pair, done } = reserved[settled.length] as (typeof reserved)[number]
      const dueAt = startedAt + settled.length * between + TASK_MS
      settled.push(done.then(() => timed(dueAt, pair.settle())))
    }
  }
  await new Promise<void>((resolve) => {
    const timer = setInterval(() => {
      send()
      if (settled.length < count) return
      clearInterval(timer)
      resolve()
    }, TICK_MS)
  })
  await Promise.all(settled)
  return latencies
}

export function latencyMarks(latencies: readonly number[]): Marks {
  const sorted = latencies.toSorted((a, b) => a - b)
  const at = (share: number): number => sorted[Math.ceil(sorted.length * share) - 1] ?? Number.NaN
  return { pairs: sorted.length / 2, p50Ms: at(0.5), p99Ms: at(0.99) }
}
