/**
 * Aggregated usage and cost of an account, exact at any time: what its charges add up to, as its entries stand. Most of it comes
 * from totals (`usage/fold.ts`); what came after them, what lies in a part of a quarter hour, and what totals were not told apart
 * by, from the entries.
 */
import { SluiceError } from '../errors.ts'
import type { AccountCell } from '../kernel/cells.ts'
import type { CalendarUnit, WindowRule } from '../kernel/plan.ts'
import { type Bounds, boundsAt } from '../kernel/windows.ts'
import type { Store, UsageRange, UsageState, UsageTotal } from '../store.ts'
import { formatMicros, type Micros, type Millis } from '../units.ts'
import type { UsageQuery, UsageRow } from '../wire.ts'
import { instant } from './intake.ts'
import {
  countTotal,
  countUse,
  emptySum,
  HOUR_MS,
  knows,
  LONGEST_MS,
  QUARTER_MS,
  readGroup,
  SPANS_MS,
  type Sum,
  startOf,
} from './usage/sums.ts'
import { groupOf, oldestOf, readUses, spansOf, type Use } from './usage/uses.ts'

/** What was asked for, checked. Buckets tile the time line; without one there is one, from end to end. */
interface Asked {
  readonly from: Millis
  readonly to: Millis
  readonly names: readonly string[]
  readonly bucketAt: (at: Millis) => Bounds
  /** The lengths of totals that may lie in a bucket, the longest first. */
  readonly spansMs: readonly Millis[]
}

/** `unfolded`: how many usage and charge entries had to be read behind the totals. */
export async function usageRows(
  store: Store,
  account: AccountCell,
  query: UsageQuery,
): Promise<{ readonly rows: UsageRow[]; readonly unfolded: number }> {
  const asked = askedOf(query, account)
  for (let oldest = 0; ; ) {
    const answer = await tryRows(store, account.id, asked, oldest)
    if ('rows' in answer) return answer
    oldest = answer.oldest
  }
}

/**
 * `oldest` is the least number that is taken to be there. Answers what it is where that was wrong, or where totals moved on while
 * they were read.
 */
async function tryRows(
  store: Store,
  account: string,
  asked: Asked,
  oldest: number,
): Promise<{ readonly rows: UsageRow[]; readonly unfolded: number } | { readonly oldest: number }> {
  const { revision, ...state } = await store.usage(account, [])
  const sums = createSums(asked)
  // Both at once: one is the database's work, the other mostly this thread's.
  const [kept, tail] = await Promise.all([
    store.usage(account, rangesOf(asked, state)),
    readUses(store, account, { from: state.through + 1 }, sums.addUse),
  ])
  if (kept.revision !== revision) return { oldest }
  const apart = countTotals(kept.totals, asked, sums)
  const there = apart.filter(({ firstSeq }) => firstSeq >= oldest)
  // Where entries are gone, totals are all that there is.
  for (const { firstSeq, totals } of apart) if (firstSeq < oldest) totals.forEach(sums.addTotal)
  const times = new Set(there.map(timeText))
  const isApart = (at: Millis): boolean =>
    SPANS_MS.some((spanMs) => times.has(timeText({ spanMs, startAt: startOf(at, spanMs) })))
  for (const span of spansOf(there)) {
    await readUses(store, account, span, (use) => {
      if (isApart(use.usage.at)) sums.addUse(use)
    })
  }
  const now = await oldestOf(store, account)
  const missed = there.some(({ firstSeq }) => firstSeq < now)
  // Entries go only when they are in totals.
  const moved = now > state.through + 1 && (await store.usage(account, [])).through > state.through
  return missed || moved ? { oldest: now } : { rows: sums.rows(), unfolded: tail.count }
}

const timeText = ({ spanMs, startAt }: { readonly spanMs: Millis; readonly startAt: Millis }): string =>
  `${spanMs} ${startAt}`

/** Totals of one length of time that are not told apart as the answer needs them. */
interface Apart {
  readonly spanMs: Millis
  readonly startAt: Millis
  readonly firstSeq: number
  readonly lastSeq: number
  readonly totals: readonly UsageTotal[]
}

/**
 * Counts the totals that lie in one bucket and know what is asked for. Answers the lengths of time that have another one: all
 * uses in these have to be read, since a use does not tell which total has it.
 */
function countTotals(totals: readonly UsageTotal[], { from, to }: Asked, sums: Sums): Apart[] {
  const concerned = totals.filter(({ firstAt, lastAt }) => lastAt >= from && firstAt < to)
  const times = new Set(concerned.filter((total) => !sums.isWhole(total)).map(timeText))
  const isApart = (total: UsageTotal): boolean => times.size > 0 && times.has(timeText(total))
  for (const total of concerned) if (!isApart(total)) sums.addTotal(total)
  return [...Map.groupBy(concerned.filter(isApart), timeText).values()].map((some) => {
    const { spanMs, startAt } = some[0] as UsageTotal
    const firstSeq = Math.min(...some.map((total) => total.firstSeq))
    const lastSeq = Math.max(...some.map((total) => total.lastSeq))
    return { spanMs, startAt, firstSeq, lastSeq, totals: some }
  })
}

/**
 * Where to look for totals, as far as there are any: of the longest spans that lie in the range and in one bucket. A piece at an
 * end that is less than a quarter hour is a quarter hour.
 */
function rangesOf(asked: Asked, { earliestAt, latestAt }: UsageState): UsageRange[] {
  if (earliestAt === null || latestAt === null) return []
  const from = Math.max(startOf(asked.from, QUARTER_MS), startOf(earliestAt, LONGEST_MS))
  const to = Math.min(endOf(asked.to, QUARTER_MS), startOf(latestAt, LONGEST_MS) + LONGEST_MS)
  if (from >= to) return []
  const ends = [asked.from, asked.to]
  if (asked.spansMs.length > 1) {
    for (let at = asked.bucketAt(from).endAt; at < to; at = asked.bucketAt(at).endAt) ends.push(at)
  }
  return joined(coverOf({ from, to }, ends, asked.spansMs))
}

function joined(ranges: readonly UsageRange[]): UsageRange[] {
  const found: UsageRange[] = []
  for (const range of ranges) {
    const last = found.at(-1)
    if (last?.spanMs !== range.spanMs) found.push(range)
    else found[found.length - 1] = { ...last, to: range.to }
  }
  return found
}

const endOf = (at: Millis, spanMs: Millis): Millis => Math.ceil(at / spanMs) * spanMs

/** `[from, to)` in spans of these lengths, the longest first, none of which has one of these instants inside. */
function coverOf(
  { from, to }: { readonly from: Millis; readonly to: Millis },
  cuts: readonly Millis[],
  [spanMs = QUARTER_MS, ...shorter]: readonly Millis[],
): UsageRange[] {
  if (shorter.length === 0) return [{ spanMs, from, to }]
  const inside = cuts.filter((at) => at > startOf(from, spanMs) && at < endOf(to, spanMs))
  // Where a span has one inside, and where the range begins or ends in the middle of one, shorter ones are looked for.
  const broken = new Set(
    [...inside, from, to].flatMap((at) => (at % spanMs === 0 ? [] : [startOf(at, spanMs)])),
  )
  const ranges: UsageRange[] = []
  let next = from
  for (const at of [...broken].sort((a, b) => a - b)) {
    if (next < at) ranges.push({ spanMs, from: next, to: at })
    const piece = { from: Math.max(next, at), to: Math.min(to, at + spanMs) }
    if (piece.from < piece.to) ranges.push(...coverOf(piece, inside, shorter))
    next = Math.max(next, piece.to)
  }
  if (next < to) ranges.push({ spanMs, from: next, to })
  return ranges
}

type Sums = ReturnType<typeof createSums>

/** The rows of the answer, as they are added up. */
function createSums({ from, to, names, bucketAt }: Asked) {
  interface Row {
    readonly startAt: Millis
    readonly group: Readonly<Record<string, string | null>>
    readonly sum: Sum
  }
  const rows = new Map<string, Row>()
  interface Group {
    readonly known: boolean
    readonly values: Readonly<Record<string, string | null>>
    /** The same as text. */
    readonly text: string
  }
  const groups = new Map<string, Group>()

  /** What a total's group says of what is asked for; there are few of them, and many totals of each. */
  function askedOf(group: string): Group {
    let found = groups.get(group)
    if (found === undefined) {
      const own = readGroup(group)
      const values = Object.fromEntries(names.map((name) => [name, own[name] ?? null]))
      found = { known: knows(own, names), values, text: JSON.stringify(values) }
      groups.set(group, found)
    }
    return found
  }
  function sumOf(at: Millis, values: Group['values'], text: string): Sum {
    const { startAt } = bucketAt(at)
    const key = `${startAt} ${text}`
    let row = rows.get(key)
    if (row === undefined) {
      row = { startAt, group: values, sum: emptySum() }
      rows.set(key, row)
    }
    return row.sum
  }
  return {
    isWhole: ({ group, firstAt, lastAt }: UsageTotal): boolean =>
      firstAt >= from && lastAt < to && lastAt < bucketAt(firstAt).endAt && askedOf(group).known,
    /** As a whole where its first use was. */
    addTotal(total: UsageTotal): void {
      if (total.firstAt < from || total.firstAt >= to) return
      const { values, text } = askedOf(total.group)
      countTotal(sumOf(total.firstAt, values, text), total)
    },
    addUse(use: Use): void {
      const { at } = use.usage
      if (at < from || at >= to) return
      const values = groupOf(use, names)
      countUse(sumOf(at, values, JSON.stringify(values)), use)
    },
    rows: (): UsageRow[] =>
      [...rows]
        .sort(
          ([key, a], [other, b]) =>
            a.startAt - b.startAt || b.sum.charged - a.sum.charged || (key < other ? -1 : 1),
        )
        .map(([, { startAt, group, sum }]) => ({
          start_at: startAt,
          group,
          requests: sum.requests,
          charged: formatMicros(sum.charged),
          quantities: amountsOf(sum.quantities),
          sources: amountsOf(sum.sources),
        })),
  }
}

const amountsOf = (sums: ReadonlyMap<string, Micros>): Record<string, string> =>
  Object.fromEntries(
    [...sums].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, amount]) => [name, formatMicros(amount)]),
  )

function askedOf(query: UsageQuery, account: AccountCell): Asked {
  const { from, to, bucket, group_by: names = [] } = query
  instant(from, '/from')
  instant(to, '/to')
  if (from > to)
    throw new SluiceError('invalid', '/to: lies before from', {
      path: '/to',
      remedy: 'send from and to as instants, from first',
    })
  for (const name of names) {
    if (name !== 'feature' && name !== 'endpoint' && !/^(subject|attributes)\../.test(name)) {
      throw new SluiceError('invalid', `/group_by: ${name} is no group`, {
        path: '/group_by',
        remedy: 'send feature, endpoint, subject.<dimension> or attributes.<name>',
      })
    }
  }
  const longestMs = bucket === '15m' ? QUARTER_MS : bucket === 'hour' ? HOUR_MS : LONGEST_MS
  const spansMs = SPANS_MS.filter((spanMs) => spanMs <= longestMs).toReversed()
  const range = { from, to, names, spansMs }
  if (bucket === undefined) return { ...range, bucketAt: () => ({ startAt: from, endAt: Infinity }) }
  if (bucket === '15m') {
    return {
      ...range,
      bucketAt(at) {
        const startAt = startOf(at, QUARTER_MS)
        return { startAt, endAt: startAt + QUARTER_MS }
      },
    }
  }
  if (!['hour', 'day', 'week', 'month'].includes(bucket)) {
    throw new SluiceError('invalid', `/bucket: ${bucket} is no bucket`, {
      path: '/bucket',
      remedy: 'send 15m, hour, day, week or month',
    })
  }
  const rule: WindowRule = { anchor: 'calendar', unit: bucket as CalendarUnit, weekStart: 1 }
  return { ...range, bucketAt: (at) => boundsAt(rule, at, account) }
}
