/**
 * What a request costs at most, while nobody can be asked: from its own `cost`, or from what was decided before for the same
 * feature and attributes. Prices are linear with a fixed part, so that a request with at most n times the quantities, n at
 * least 1, costs at most n times as much; this holds until prices are changed.
 */
import type { AmountIn, QuantitiesIn, ReserveRequest } from '../src/wire.ts'
import { microsOf } from './amounts.ts'

export type Priced = Pick<ReserveRequest, 'feature' | 'attributes' | 'estimate' | 'cost'>

export interface Bounds {
  /** Notes what was decided. */
  learn(request: Priced, cost: AmountIn): void
  /** The most that it can cost, in µCU; undefined where nothing like it was decided before. */
  of(request: Priced): bigint | undefined
}

const MOST = 1_000
/** Parts of a ratio of quantities; rounded up, so that the bound stays one. */
const PARTS = 1_000_000

interface Known {
  readonly estimate: QuantitiesIn | undefined
  readonly micros: bigint
}

export function createBounds(): Bounds {
  const known = new Map<string, Known>()
  return {
    learn(request, cost) {
      if (request.cost !== undefined) return
      const key = keyOf(request)
      known.delete(key)
      known.set(key, { estimate: request.estimate, micros: microsOf(cost) })
      if (known.size > MOST) known.delete(known.keys().next().value as string)
    },
    of(request) {
      if (request.cost !== undefined) return microsOf(request.cost)
      const like = known.get(keyOf(request))
      if (like === undefined) return undefined
      const ratio = ratioOf(request.estimate, like.estimate)
      if (ratio === undefined) return undefined
      const parts = BigInt(Math.ceil(ratio * PARTS))
      return (like.micros * parts + BigInt(PARTS - 1)) / BigInt(PARTS)
    },
  }
}

/** How many times the quantities, at least 1; undefined where one is asked for that was not before. */
function ratioOf(asked: QuantitiesIn | undefined, before: QuantitiesIn | undefined): number | undefined {
  if (asked === undefined) return before === undefined ? 1 : undefined
  let ratio = 1
  for (const [name, quantity] of Object.entries(asked)) {
    if (Number(quantity) === 0) continue
    const known = Number(before !== undefined && Object.hasOwn(before, name) ? before[name] : 0)
    if (!(known > 0)) return undefined
    ratio = Math.max(ratio, Number(quantity) / known)
  }
  return Number.isFinite(ratio) ? ratio : undefined
}

function keyOf({ feature, attributes = {}, estimate }: Priced): string {
  const named = Object.entries(attributes).map(([name, value]) => [name, String(value)])
  return JSON.stringify([feature, named.sort(), estimate === undefined])
}
