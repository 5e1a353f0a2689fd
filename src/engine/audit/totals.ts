/**
 * Totals of usage held against the entries that they count, while an audit reads these once.
 *
 * Which use stands in which total is told by no entry: totals are kept apart by the dimensions of the policy that was in force when
 * they were made. So those of a quarter hour are compared by the dimensions that all of them know, which every use has one place in.
 * Those of longer times are compared with their quarter hours. Groups that agree are let go: what is in memory is totals of some days,
 * and those that wait for uses told late.
 *
 * Others may fold and erase meanwhile. So what does not agree is only suspected at first, and is looked at again by itself:
 * totals as of one moment, and the entries up to where they stand.
 */
import { AssertionError } from '../../assert.ts'
import type { Tell } from '../../ledger/audit.ts'
import type { ChainHead, ChargeEntry, Entry, PrivatePart, StoredEntry } from '../../ledger/entries.ts'
import type { Store, UsageKept, UsageState, UsageTotal } from '../../store.ts'
import { formatMicros, type Millis } from '../../units.ts'
import {
  type Growing,
  type Growths,
  growByTotal,
  growByUse,
  HOUR_MS,
  knows,
  LONGEST_MS,
  QUARTER_MS,
  readGroup,
  SPANS_MS,
  startOf,
} from '../usage/sums.ts'
import { firstUse, oldestOf, readUsed, readUses, spansOf, type Use, type Used, useOf } from '../usage/uses.ts'

export interface TotalsAudit {
  /** The next entry, in order. */
  read(entry: Entry, person: PrivatePart | null): void
  /** Between pages of entries: nothing of them stays but what totals do not have yet. */
  catchUp(): Promise<void>
  /** After the last entry, which is the head. */
  end(head: ChainHead): Promise<void>
}

/** So many entries have few enough totals to be read at once: three a use at most. */
const AT_ONCE = 5_000
/** Totals read at once grow with their time until there are so many of them, and less where there are more. */
const FEW = 1_000
const MANY = 8_000
const DAY_MS = 4 * LONGEST_MS
const MOST_MS = 32 * DAY_MS
/** A reach like that is damage, and would be read for hours. */
const IMPOSSIBLE_MS = 400 * 366 * DAY_MS
const EVER_MS = 8.64e15
/** Suspected quarter hours that are looked at together. */
const CHUNK = 500
/** An erasure changes the totals of a quarter hour twice. */
const ROUNDS = 5

/**
 * `state` was read before the first entry: uses up to there are counted. `from`: entries up to this one are not read, and quarter
 * hours with totals that count one of them are not compared with entries.
 */
export function auditTotals(
  store: Store,
  account: string,
  state: UsageState,
  from: number,
  tell: Tell,
): TotalsAudit | undefined {
  const { through } = state
  if (through === 0 && state.earliestAt === null) return undefined
  const say = (message: string, amount?: number): void => tell('usage', message, { amount })
  const reach = reachOf(state)
  const recent = new Map<number, Used>()
  let waiting: { readonly charge: ChargeEntry; readonly used: Used | undefined }[] = []
  const namesAt = new Map<Millis, readonly string[] | undefined>()
  const counted: Growths = new Map()
  const kept: Growths = new Map()
  let loaded = reach.from
  let stepMs = through <= AT_ONCE ? reach.to - reach.from : DAY_MS
  let broken = false

  const entryOf = async (seq: number): Promise<StoredEntry | undefined> =>
    (await store.entries(account, { from: seq, to: seq, limit: 1 }))[0]

  async function useFor({ charge, used }: (typeof waiting)[number]): Promise<Use | undefined> {
    const own = used ?? usedOf(await entryOf(charge.usage))
    return own === undefined ? undefined : useOf(own, charge, entryOf)
  }

  async function catchUp(): Promise<void> {
    const charges = waiting
    waiting = []
    const uses = await Promise.all(
      charges.map((one) =>
        one.used !== undefined && one.charge.corrects === undefined
          ? firstUse(one.used, one.charge)
          : useFor(one),
      ),
    )
    const there = uses.filter((use) => use !== undefined)
    await load(there.reduce((latest, { usage }) => Math.max(latest, usage.at), Number.NEGATIVE_INFINITY))
    for (const use of there) {
      const startAt = startOf(use.usage.at, QUARTER_MS)
      const names = namesAt.has(startAt) ? namesAt.get(startAt) : []
      if (names !== undefined) growByUse(counted, use, names, [QUARTER_MS])
    }
    for (const [key, one] of counted) {
      const other = kept.get(key)
      if (other === undefined || other.lastSeq !== one.lastSeq || unlike(other, one).length > 0) continue
      counted.delete(key)
      kept.delete(key)
    }
  }

  /** Reads totals in order of time, up to those of an instant. */
  async function load(at: Millis): Promise<void> {
    while (loaded < reach.to && loaded <= at) {
      const to = Math.min(loaded + stepMs, reach.to)
      const within = (begin: Millis, end: Millis) =>
        SPANS_MS.map((spanMs) => ({ spanMs, from: begin, to: end })).filter((range) => range.from < range.to)
      const beyond =
        loaded > reach.from ? [] : [...within(-EVER_MS, reach.from), ...within(reach.to, EVER_MS)]
      const now = await store.usage(account, [...within(loaded, to), ...beyond])
      const totals = now.totals.filter(inReach(reach))
      if (now.totals.some((total) => !inReach(reachOf(now))(total)))
        say('there are totals of usage outside of the times that answers look for them in')
      compareLonger(totals, say)
      for (const [startAt, some] of quartersOf(totals)) {
        const names = comparable(some, from)
        namesAt.set(startAt, names)
        if (names !== undefined) for (const total of some) growBy(kept, total, names)
      }
      loaded = to
      if (totals.length < FEW) stepMs = Math.min(stepMs * 2, MOST_MS)
      if (totals.length > MANY) stepMs = Math.max(startOf(stepMs / 2, LONGEST_MS), LONGEST_MS)
    }
  }

  /** Answers what does not agree in these quarter hours at the moment of these totals. */
  async function disagreeing(quarters: ReadonlySet<Millis>, now: UsageKept): Promise<Unlike[]> {
    const totals = quartersOf(now.totals.filter(inReach(reachOf(now))))
    const mine: Growths = new Map()
    const theirs: Growths = new Map()
    const seen = [...counted.values()].filter(({ startAt }) => quarters.has(startAt))
    const written = now.through > through ? [{ firstSeq: through + 1, lastSeq: now.through }] : []
    const spans = spansOf([...[...totals.values()].flat(), ...seen, ...written])
    const names = new Map(
      [...quarters].map((startAt) => [startAt, comparable(totals.get(startAt) ?? [], from)] as const),
    )
    for (const span of spans) {
      const range = { from: Math.max(span.from, 1), to: Math.min(span.to, now.through) }
      if (range.from > range.to) continue
      await readUses(store, account, range, (use) => {
        const known = names.get(startOf(use.usage.at, QUARTER_MS))
        if (known !== undefined) growByUse(mine, use, known, [QUARTER_MS])
      })
    }
    const oldest = await oldestOf(store, account)
    const gone = new Set<Millis>()
    // Let go while they were read.
    if (oldest > from + 1)
      for (const { startAt, firstSeq } of [...[...totals.values()].flat(), ...seen])
        if (firstSeq < oldest) gone.add(startAt)
    for (const [startAt, some] of totals) {
      const known = names.get(startAt)
      if (known !== undefined) for (const total of some) growBy(theirs, total, known)
    }
    return [...new Set([...theirs.keys(), ...mine.keys()])].flatMap((key) => {
      const found = { total: theirs.get(key), entries: mine.get(key) }
      const { startAt } = (found.total ?? found.entries) as Growing
      return gone.has(startAt) || unlike(found.total, found.entries).length === 0 ? [] : [found]
    })
  }

  async function confirm(quarters: ReadonlySet<Millis>): Promise<void> {
    const ranges = [...quarters].map((at) => ({ spanMs: QUARTER_MS, from: at, to: at + QUARTER_MS }))
    for (let round = 1; ; round++) {
      const now = await store.usage(account, ranges)
      const found = await disagreeing(quarters, now)
      if (found.length === 0) return
      const moved = (await store.usage(account, [])).revision !== now.revision
      if (moved && round < ROUNDS) continue
      for (const { total, entries } of found)
        say(sentence(total, entries, 'its entries'), chargedMore(total, entries))
      return
    }
  }

  /** No damage makes an audit fail. */
  async function guarded(work: () => Promise<void>): Promise<void> {
    if (broken) return
    try {
      await work()
    } catch (error) {
      if (!isDamage(error)) throw error
      broken = true
      say(`its totals of usage cannot be compared with its entries: ${error.message}`)
    }
  }

  if (reach.to - reach.from > IMPOSSIBLE_MS) {
    broken = true
    say(`its totals of usage reach from ${instantOf(reach.from)} to ${instantOf(reach.to)}`)
  }
  return {
    read(entry, person) {
      if (entry.seq > through || broken) return
      if (entry.kind === 'usage') recent.set(entry.seq, { usage: entry, person })
      else if (entry.kind === 'charge') {
        waiting.push({ charge: entry, used: recent.get(entry.usage) })
        recent.delete(entry.usage)
      }
    },
    catchUp: () => guarded(catchUp),
    async end(head) {
      if (through > head.seq)
        say(`its totals of usage stand up to entry ${through}, and the journal ends at entry ${head.seq}`)
      await guarded(async () => {
        await catchUp()
        await load(Number.POSITIVE_INFINITY)
        await catchUp()
        const suspects = [...counted.values(), ...kept.values()].map(({ startAt }) => startAt)
        const quarters = [...new Set(suspects)].sort((a, b) => a - b)
        for (let next = 0; next < quarters.length; next += CHUNK)
          await confirm(new Set(quarters.slice(next, next + CHUNK)))
      })
    },
  }
}

/** Where answers look for totals. */
function reachOf({ earliestAt, latestAt }: UsageState): { readonly from: Millis; readonly to: Millis } {
  if (earliestAt === null || latestAt === null) return { from: 0, to: 0 }
  return { from: startOf(earliestAt, LONGEST_MS), to: startOf(latestAt, LONGEST_MS) + LONGEST_MS }
}

const inReach =
  ({ from, to }: ReturnType<typeof reachOf>) =>
  ({ startAt }: UsageTotal): boolean =>
    startAt >= from && startAt < to

const quartersOf = (totals: readonly UsageTotal[]): Map<Millis, UsageTotal[]> =>
  Map.groupBy(
    totals.filter(({ spanMs }) => spanMs === QUARTER_MS),
    ({ startAt }) => startAt,
  )

/** The names that all of them know; undefined where one counts an entry that is not read. */
function comparable(totals: readonly UsageTotal[], from: number): readonly string[] | undefined {
  if (from > 0 && totals.some(({ firstSeq }) => firstSeq <= from)) return undefined
  const [first, ...others] = totals.map(({ group }) => readGroup(group))
  if (first === undefined) return []
  return Object.keys(first).filter((name) => others.every((group) => knows(group, [name])))
}

function growBy(growths: Growths, total: UsageTotal, names: readonly string[]): void {
  const own = readGroup(total.group)
  const group = JSON.stringify(Object.fromEntries(names.map((name) => [name, own[name] ?? null])))
  growByTotal(growths, total, { spanMs: QUARTER_MS, startAt: total.startAt, group })
}

/** Totals of longer times are those of their quarter hours, group by group. */
function compareLonger(totals: readonly UsageTotal[], say: (message: string, amount?: number) => void): void {
  const made: Growths = new Map()
  const there: Growths = new Map()
  for (const total of totals) {
    if (total.spanMs !== QUARTER_MS) growByTotal(there, total)
    else
      for (const spanMs of SPANS_MS)
        if (spanMs !== QUARTER_MS)
          growByTotal(made, total, { spanMs, startAt: startOf(total.startAt, spanMs), group: total.group })
  }
  for (const key of new Set([...there.keys(), ...made.keys()])) {
    const [total, quarters] = [there.get(key), made.get(key)]
    if (unlike(total, quarters).length > 0)
      say(sentence(total, quarters, 'those of its quarter hours'), chargedMore(total, quarters))
  }
}

// --- what two sides say

interface Unlike {
  readonly total: Growing | undefined
  readonly entries: Growing | undefined
}

const plain = (value: number): string => String(value)
const LENGTHS = new Map([
  [QUARTER_MS, 'quarter hour'],
  [HOUR_MS, 'hour'],
  [LONGEST_MS, 'six hours'],
])
const instantOf = (at: Millis): string =>
  Math.abs(at) <= EVER_MS ? Temporal.Instant.fromEpochMilliseconds(at).toString() : String(at)

/** What differs, each with both sides as text. */
function unlike(one: Growing | undefined, other: Growing | undefined): [string, string, string][] {
  const found: [string, string, string][] = []
  const see = (name: string, a: number | undefined, b: number | undefined, text: typeof plain): void => {
    if ((a ?? 0) !== (b ?? 0)) found.push([name, text(a ?? 0), text(b ?? 0)])
  }
  see('requests', one?.sum.requests, other?.sum.requests, plain)
  see('charged', one?.sum.charged, other?.sum.charged, formatMicros)
  for (const part of ['quantities', 'sources'] as const) {
    const names = new Set([...(one?.sum[part].keys() ?? []), ...(other?.sum[part].keys() ?? [])])
    for (const name of names)
      see(`${part}.${name}`, one?.sum[part].get(name), other?.sum[part].get(name), formatMicros)
  }
  see('first_at', one?.firstAt, other?.firstAt, instantOf)
  see('last_at', one?.lastAt, other?.lastAt, instantOf)
  see('first_seq', one?.firstSeq, other?.firstSeq, plain)
  see('last_seq', one?.lastSeq, other?.lastSeq, plain)
  return found
}

function sentence(total: Growing | undefined, other: Growing | undefined, others: string): string {
  const { spanMs, startAt, group } = (total ?? other) as Growing
  const what = `${LENGTHS.get(spanMs)} from ${instantOf(startAt)} in the group ${group}`
  if (total === undefined) return `no total of the ${what} counts what ${others} say: ${sums(other)}`
  if (other === undefined)
    return `the total of the ${what} counts ${sums(total)}, and ${others} say nothing of it`
  const told = unlike(total, other).map(([name, one, two]) => `${name} ${one} and not ${two}`)
  return `the total of the ${what} is not what ${others} add up to: ${told.join(', ')}`
}

const sums = (growing: Growing | undefined): string =>
  `${growing?.sum.requests} requests and ${formatMicros(growing?.sum.charged ?? 0)} CU`

const chargedMore = (total: Growing | undefined, other: Growing | undefined): number | undefined =>
  (total?.sum.charged ?? 0) - (other?.sum.charged ?? 0) || undefined

const usedOf = (stored: StoredEntry | undefined): Used | undefined =>
  stored?.kind === 'usage' ? readUsed(stored) : undefined

/** Stores say that something failed, and why in the cause. */
const isDamage = (error: unknown): error is Error =>
  [SyntaxError, TypeError, RangeError, AssertionError].some(
    (kind) => error instanceof kind || (error as Error).cause instanceof kind,
  )
