/** What is reserved before it is known: the part of a request that only its end tells. */
import { usage } from '../failure.ts'

export interface Estimator {
  /** What to reserve for a request that will turn out to use `real`. */
  guess(real: number): number
  /** Learns from a request that has ended. */
  learn(real: number): void
  readonly rule: string
}

/** How many ended requests a running percentile looks back over, and how many it needs before it speaks. */
const LOOK_BACK = 1000
const LEAST = 20
const FIRST_GUESS = 1000

/** `p50` … `p99`: a running percentile; `exact`: an oracle; a number: always that. */
export function createEstimator(rule: string, first = FIRST_GUESS): Estimator {
  if (rule === 'exact') return { guess: (real) => real, learn: () => {}, rule: 'exactly what it will be' }
  if (/^\d{1,9}$/.test(rule)) {
    const fixed = Number(rule)
    return { guess: () => fixed, learn: () => {}, rule: `always ${fixed}` }
  }
  const percent = Number(/^p([1-9]\d?)$/.exec(rule)?.[1])
  if (Number.isNaN(percent))
    throw usage(`${rule} is no rule for an estimate`, 'Take p50, p90, exact or a number.')
  const seen = createWindow(LOOK_BACK)
  return {
    guess: () => (seen.size < LEAST ? first : Math.ceil(seen.at(percent / 100))),
    learn: seen.add,
    rule: `${rule} of the last ${LOOK_BACK} that ended, ${first} until ${LEAST} have`,
  }
}

/** The last values, kept in order of size as well. */
function createWindow(length: number) {
  const inOrder: number[] = []
  const bySize: number[] = []
  let oldest = 0

  function placeOf(value: number): number {
    let [low, high] = [0, bySize.length]
    while (low < high) {
      const middle = (low + high) >> 1
      if ((bySize[middle] ?? 0) < value) low = middle + 1
      else high = middle
    }
    return low
  }
  return {
    get size() {
      return bySize.length
    },
    at: (part: number): number => bySize[Math.min(bySize.length - 1, Math.floor(part * bySize.length))] ?? 0,
    add(value: number): void {
      if (bySize.length === length) {
        bySize.splice(placeOf(inOrder[oldest] ?? 0), 1)
        inOrder[oldest] = value
        oldest = (oldest + 1) % length
      } else inOrder.push(value)
      bySize.splice(placeOf(value), 0, value)
    },
  }
}
