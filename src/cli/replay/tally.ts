/** What happened in a replay, counted. */
import { add, type Micros, type Millis, parseMicros } from '../../units.ts'
import type { ChargeAnswer, DecisionAnswer, Share } from '../../wire.ts'

/** A request worth looking at: `sluice explain` tells the rest. */
export interface Pointer {
  readonly account: string
  readonly request: string
}

export interface Tally {
  requests: number
  readonly accounts: Set<string>
  firstAt: Millis
  lastAt: Millis
  /** `allow granted` → how many requests ended so. */
  readonly decisions: Map<string, number>
  /** Error code → how many requests. */
  readonly errors: Map<string, number>
  /** As it is told: `allowance:tasks`, `grant:plan:1` by its account. */
  readonly charged: Map<string, Micros>
  readonly grants: Map<string, Map<string, Micros>>
  readonly waits: { told: number; honoured: number; admitted: number; readonly lengths: number[] }
  /** Estimate ÷ what was charged, of each request that cost something. */
  readonly ratios: number[]
  tooLow: number
  returned: Micros
  replayed: number
  operations: number
  /** Milliseconds from asking to the answer, of decisions. */
  readonly latencies: number[]
  split: Pointer | undefined
  readonly refused: Map<string, Pointer>
}

export function createTally(): Tally {
  return {
    requests: 0,
    accounts: new Set(),
    firstAt: Number.POSITIVE_INFINITY,
    lastAt: Number.NEGATIVE_INFINITY,
    decisions: new Map(),
    errors: new Map(),
    charged: new Map(),
    grants: new Map(),
    waits: { told: 0, honoured: 0, admitted: 0, lengths: [] },
    ratios: [],
    tooLow: 0,
    returned: 0,
    replayed: 0,
    operations: 0,
    latencies: [],
    split: undefined,
    refused: new Map(),
  }
}

export function countUp(counts: Map<string, number>, key: string, by = 1): void {
  counts.set(key, add(counts.get(key) ?? 0, by))
}

/** The decision that a request ended with. */
export function countDecision(tally: Tally, pointer: Pointer, answer: DecisionAnswer): void {
  countUp(tally.decisions, `${answer.outcome} ${answer.reason}`)
  if (answer.replayed) tally.replayed += 1
  const refused = answer.outcome === 'wait' || answer.outcome === 'deny'
  if (refused && !tally.refused.has(answer.reason)) tally.refused.set(answer.reason, pointer)
}

export function countCharge(
  tally: Tally,
  pointer: Pointer,
  reserved: DecisionAnswer,
  answer: ChargeAnswer,
): void {
  for (const share of answer.from) countShare(tally, pointer.account, share)
  tally.returned = add(tally.returned, micros(answer.returned))
  const [estimated, charged] = [micros(reserved.granted), micros(answer.charged)]
  if (charged > 0) tally.ratios.push(estimated / charged)
  if (charged > estimated) tally.tooLow += 1
  if (answer.from.length > 1 && tally.split === undefined) tally.split = pointer
}

function countShare({ charged, grants }: Tally, account: string, { source, amount }: Share): void {
  if (!source.startsWith('grant:')) return countUp(charged, source, micros(amount))
  const own = grants.get(account) ?? new Map<string, Micros>()
  grants.set(account, own)
  countUp(own, source.slice('grant:'.length), micros(amount))
}

const micros = (amount: string): Micros => parseMicros(amount) ?? 0

/** The value that so many parts of the values are not above. */
export function percentile(values: readonly number[], part: number): number | undefined {
  if (values.length === 0) return undefined
  const sorted = Float64Array.from(values).sort()
  return sorted[Math.min(sorted.length - 1, Math.ceil(part * sorted.length) - 1)]
}
