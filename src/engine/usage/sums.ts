/** Sums of usage, and the totals that stores keep of them. Nothing here reads or writes. */
import type { UsageKey, UsageTotal } from '../../store.ts'
import { add, type Micros, type Millis } from '../../units.ts'
import { groupOf, type Use } from './uses.ts'

export interface Sum {
  requests: number
  charged: Micros
  /** By name. A map, since names are callers' own. */
  readonly quantities: Map<string, number>
  readonly sources: Map<string, Micros>
}
export const emptySum = (): Sum => ({ requests: 0, charged: 0, quantities: new Map(), sources: new Map() })

export function countUse(sum: Sum, { charge, quantities }: Use): void {
  sum.charged = add(sum.charged, charge.cost)
  if (charge.corrects === undefined) sum.requests += 1
  for (const [source, amount] of charge.cover) {
    more(sum.sources, source.startsWith('grant:') ? 'credits' : (source.split(':')[0] as string), amount)
  }
  for (const [name, quantity] of Object.entries(quantities)) more(sum.quantities, name, quantity)
}

export function countTotal(sum: Sum, total: UsageTotal): void {
  sum.charged = add(sum.charged, total.charged)
  sum.requests += total.requests
  for (const name in total.sources) more(sum.sources, name, total.sources[name] as number)
  for (const name in total.quantities) more(sum.quantities, name, total.quantities[name] as number)
}

function more(sums: Map<string, number>, name: string, amount: number): void {
  sums.set(name, add(sums.get(name) ?? 0, amount))
}

// --- totals

/**
 * The lengths that totals are kept for, in UTC, each so many times the one before. Of quarter hours, since every offset of a zone is
 * a multiple of that; and of longer ones, which most of a long range is made of. Six hours, because a day of most zones has three of
 * them and six hours besides: nine totals, and not 24.
 */
export const QUARTER_MS: Millis = 900_000
export const HOUR_MS: Millis = 3_600_000
export const LONGEST_MS: Millis = 6 * HOUR_MS
export const SPANS_MS: readonly Millis[] = [QUARTER_MS, HOUR_MS, LONGEST_MS]

export const startOf = (at: Millis, spanMs: Millis): Millis => Math.floor(at / spanMs) * spanMs

/** A total that is being added up. */
export interface Growing extends UsageKey {
  readonly sum: Sum
  firstAt: Millis
  lastAt: Millis
  firstSeq: number
  lastSeq: number
}
export type Growths = Map<string, Growing>

/** Counts a use in a total of each length, or of these, by these dimensions. */
export function growByUse(
  growths: Growths,
  use: Use,
  dimensions: readonly string[],
  spansMs: readonly Millis[] = SPANS_MS,
): void {
  const { at } = use.usage
  const group = JSON.stringify(groupOf(use, dimensions))
  for (const spanMs of spansMs) {
    const key = { spanMs, startAt: startOf(at, spanMs), group }
    const growing = growingOf(growths, key, at, use.firstSeq)
    countUse(growing.sum, use)
    reach(growing, { firstAt: at, lastAt: at, firstSeq: use.firstSeq, lastSeq: use.charge.seq })
  }
}

/** Adds a total to what stands under a key, by default its own. */
export function growByTotal(growths: Growths, total: UsageTotal, key: UsageKey = total): void {
  const growing = growingOf(growths, key, total.firstAt, total.firstSeq)
  countTotal(growing.sum, total)
  reach(growing, total)
}

function growingOf(growths: Growths, key: UsageKey, at: Millis, seq: number): Growing {
  const place = keyText(key)
  let growing = growths.get(place)
  if (growing === undefined) {
    const { spanMs, startAt, group } = key
    growing = {
      spanMs,
      startAt,
      group,
      sum: emptySum(),
      firstAt: at,
      lastAt: at,
      firstSeq: seq,
      lastSeq: seq,
    }
    growths.set(place, growing)
  }
  return growing
}

type Reach = Pick<UsageTotal, 'firstAt' | 'lastAt' | 'firstSeq' | 'lastSeq'>
function reach(growing: Growing, { firstAt, lastAt, firstSeq, lastSeq }: Reach): void {
  growing.firstAt = Math.min(growing.firstAt, firstAt)
  growing.lastAt = Math.max(growing.lastAt, lastAt)
  growing.firstSeq = Math.min(growing.firstSeq, firstSeq)
  growing.lastSeq = Math.max(growing.lastSeq, lastSeq)
}

export const keyText = ({ spanMs, startAt, group }: UsageKey): string => `${spanMs} ${startAt} ${group}`

export function totalsOf(growths: Growths): UsageTotal[] {
  return [...growths.values()].map(({ sum, ...total }) => ({
    ...total,
    requests: sum.requests,
    charged: sum.charged,
    quantities: Object.fromEntries(sum.quantities),
    sources: Object.fromEntries(sum.sources),
  }))
}

export const readGroup = (group: string): Readonly<Record<string, string | null>> => JSON.parse(group)
export const knows = (group: Readonly<Record<string, string | null>>, names: readonly string[]): boolean =>
  names.every((name) => Object.hasOwn(group, name))
