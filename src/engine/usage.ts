/** Aggregated usage and cost of an account, exact at any time: read from its usage and charge entries as they stand. */
import { SluiceError } from '../errors.ts'
import type { AccountCell } from '../kernel/cells.ts'
import { CLOCK_TOLERANCE_MS } from '../kernel/draft.ts'
import type { CalendarUnit, WindowRule } from '../kernel/plan.ts'
import { boundsAt } from '../kernel/windows.ts'
import {
  type ChargeEntry,
  readEntry,
  readPrivate,
  type StoredEntry,
  type UsageEntry,
} from '../ledger/entries.ts'
import type { Store } from '../store.ts'
import { add, formatMicros, type Micros, type Millis } from '../units.ts'
import type { UsageQuery, UsageRow } from '../wire.ts'
import { instant } from './intake.ts'
import { breathe } from './paging.ts'
import { formatQuantities } from './present.ts'

const PAGE = 1_000
const QUARTER_HOUR_MS = 900_000

interface Sum {
  readonly startAt: Millis
  readonly group: Readonly<Record<string, string | null>>
  requests: number
  charged: Micros
  /** By name; names are callers' own, so that no object may lend them what it inherits. */
  readonly quantities: Map<string, number>
  readonly sources: Record<string, Micros>
}

export async function usageRows(store: Store, account: AccountCell, query: UsageQuery): Promise<UsageRow[]> {
  const bucketAt = bucketOf(query, account)
  const sums = new Map<string, Sum>()
  const recent = new Map<number, StoredEntry>()
  // A use may lie as far after its entry as clocks may differ.
  for (let from = await firstSince(store, account, query.from - CLOCK_TOLERANCE_MS); ; ) {
    const page = await store.entries(account.id, { from, kinds: ['usage', 'charge'], limit: PAGE })
    for (const stored of page) {
      if (stored.kind === 'usage') {
        recent.set(stored.seq, stored)
        continue
      }
      const charge = readEntry(stored) as ChargeEntry
      // A correction counts where the use it corrects did; that use may stand far back.
      const used =
        recent.get(charge.usage) ??
        (await store.entries(account.id, { from: charge.usage, to: charge.usage, limit: 1 }))[0]
      recent.delete(charge.usage)
      if (used !== undefined)
        count(sums, used, charge, await quantitiesOf(store, account.id, used, charge), query, bucketAt)
    }
    const last = page.at(-1)
    if (last === undefined || page.length < PAGE) break
    from = last.seq + 1
    await breathe()
  }
  return [...sums.values()].sort((a, b) => a.startAt - b.startAt || b.charged - a.charged).map(rowOf)
}

/** What a charge adds to the quantities: nothing for a refund, the difference where it corrects an earlier use. */
async function quantitiesOf(
  store: Store,
  account: string,
  stored: StoredEntry,
  charge: ChargeEntry,
): Promise<Readonly<Record<string, number>>> {
  if (charge.refund !== undefined) return {}
  const { quantities } = readEntry(stored) as UsageEntry
  if (charge.corrects === undefined) return quantities
  const [corrected] = await store.entries(account, { from: charge.corrects, to: charge.corrects, limit: 1 })
  if (corrected === undefined) return quantities
  const { usage } = readEntry(corrected) as ChargeEntry
  const [before] = await store.entries(account, { from: usage, to: usage, limit: 1 })
  const earlier = before === undefined ? {} : (readEntry(before) as UsageEntry).quantities
  const names = new Set([...Object.keys(quantities), ...Object.keys(earlier)])
  return Object.fromEntries(
    [...names].map((name) => [name, (owned(quantities, name) ?? 0) - (owned(earlier, name) ?? 0)]),
  )
}

function count(
  sums: Map<string, Sum>,
  stored: StoredEntry,
  charge: ChargeEntry,
  quantities: Readonly<Record<string, number>>,
  query: UsageQuery,
  bucketAt: (at: Millis) => Millis,
): void {
  const usage = readEntry(stored) as UsageEntry
  if (usage.at < query.from || usage.at >= query.to) return
  const startAt = bucketAt(usage.at)
  const group = groupOf(stored, usage, query.group_by ?? [])
  const key = JSON.stringify([startAt, group])
  let sum = sums.get(key)
  if (sum === undefined) {
    sum = { startAt, group, requests: 0, charged: 0, quantities: new Map(), sources: {} }
    sums.set(key, sum)
  }
  sum.charged = add(sum.charged, charge.cost)
  for (const [source, amount] of charge.cover) {
    const kind = source.startsWith('grant:') ? 'credits' : (source.split(':')[0] as string)
    sum.sources[kind] = add(sum.sources[kind] ?? 0, amount)
  }
  if (charge.corrects === undefined) sum.requests += 1
  for (const [name, quantity] of Object.entries(quantities)) {
    sum.quantities.set(name, add(sum.quantities.get(name) ?? 0, quantity))
  }
}

function groupOf(
  stored: StoredEntry,
  usage: UsageEntry,
  names: readonly string[],
): Record<string, string | null> {
  const person = readPrivate(stored)
  return Object.fromEntries(
    names.map((name) => {
      if (name === 'feature') return [name, usage.feature]
      if (name === 'endpoint') return [name, usage.endpoint ?? null]
      const [part, ...rest] = name.split('.')
      const from = part === 'subject' ? person?.subject : person?.attributes
      return [name, (from && owned(from, rest.join('.'))) ?? null]
    }),
  )
}

const owned = <T>(record: Readonly<Record<string, T>>, name: string): T | undefined =>
  Object.hasOwn(record, name) ? record[name] : undefined

function rowOf(sum: Sum): UsageRow {
  return {
    start_at: sum.startAt,
    group: sum.group,
    requests: sum.requests,
    charged: formatMicros(sum.charged),
    quantities: formatQuantities(Object.fromEntries(sum.quantities)),
    sources: Object.fromEntries(
      Object.entries(sum.sources).map(([source, amount]) => [source, formatMicros(amount)]),
    ),
  }
}

function bucketOf(query: UsageQuery, account: AccountCell): (at: Millis) => Millis {
  instant(query.from, '/from')
  instant(query.to, '/to')
  if (query.from > query.to)
    throw new SluiceError('invalid', '/to: lies before from', {
      path: '/to',
      remedy: 'send from and to as instants, from first',
    })
  for (const name of query.group_by ?? []) {
    if (name !== 'feature' && name !== 'endpoint' && !/^(subject|attributes)\../.test(name)) {
      throw new SluiceError('invalid', `/group_by: ${name} is no group`, {
        path: '/group_by',
        remedy: 'send feature, endpoint, subject.<dimension> or attributes.<name>',
      })
    }
  }
  const { bucket } = query
  if (bucket === undefined) return () => query.from
  if (bucket === '15m') return (at) => at - (at % QUARTER_HOUR_MS)
  if (!['hour', 'day', 'week', 'month'].includes(bucket)) {
    throw new SluiceError('invalid', `/bucket: ${bucket} is no bucket`, {
      path: '/bucket',
      remedy: 'send 15m, hour, day, week or month',
    })
  }
  const rule: WindowRule = { anchor: 'calendar', unit: bucket as CalendarUnit, weekStart: 1 }
  return (at) => boundsAt(rule, at, account).startAt
}

/** The first entry recorded at or after an instant: nothing before it can be of use at or after it. */
async function firstSince(store: Store, account: AccountCell, at: Millis): Promise<number> {
  let low = 1
  let high = account.head.seq + 1
  while (low < high) {
    const middle = Math.floor((low + high) / 2)
    const [stored] = await store.entries(account.id, { from: middle, limit: 1 })
    if (stored === undefined) high = middle
    else {
      const entry = readEntry(stored)
      if ((entry.recorded_at ?? entry.at) < at) low = middle + 1
      else high = middle
    }
  }
  return low
}
