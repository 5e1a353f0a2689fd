/**
 * Forgetting a person in totals. Their uses lose subject and attributes, as the entries do, so that totals and entries go on saying
 * the same. Totals of a quarter hour in which the person did something are first told apart by less (`loosen`), which makes reports
 * read the entries there and changes no answer; then the entries are erased; then these totals are made anew from the entries
 * (`refold`). Wherever that is interrupted, answers are exact, and doing it again goes on.
 */
import type { SubjectName } from '../../kernel/forget.ts'
import type { Store, UsageRange, UsageTotal } from '../../store.ts'
import type { Millis } from '../../units.ts'
import type { Core } from '../core.ts'
import { dimensionsOf } from './fold.ts'
import {
  type Growths,
  growByTotal,
  growByUse,
  keyText,
  knows,
  LONGEST_MS,
  QUARTER_MS,
  readGroup,
  SPANS_MS,
  startOf,
  totalsOf,
} from './sums.ts'
import { isPrivate, oldestOf, readUses, spansOf } from './uses.ts'

/** Totals rewritten in one transaction, about. */
const CHUNK = 2_000
const DAY_MS = 4 * LONGEST_MS

/** Takes out of the totals of these quarter hours what can be erased from entries. Where entries are gone, totals stay. */
export async function loosen(store: Store, account: string, quarters: ReadonlySet<Millis>): Promise<void> {
  const oldest = await oldestOf(store, account)
  await forEachChunk(
    store,
    account,
    (some, startAt) =>
      quarters.has(startAt) && isThere(some, oldest) && some.some(({ group }) => tells(group)),
    (chunk) =>
      rewrite(store, account, chunk, async (totals) => {
        const growths: Growths = new Map()
        for (const total of totals) growByTotal(growths, total, { ...total, group: looser(total.group) })
        return growths
      }),
  )
}

/**
 * Makes totals anew from the entries: of these quarter hours, and of all that know less than the policy in force names, which an
 * interrupted erasure may have left. Where entries are gone, totals that name the person no longer do.
 */
export async function refold(
  core: Core,
  account: string,
  subject: SubjectName,
  quarters: ReadonlySet<Millis>,
): Promise<void> {
  const { store } = core
  const dimensions = await dimensionsOf(core, account)
  const oldest = await oldestOf(store, account)
  await forEachChunk(
    store,
    account,
    (some, startAt) =>
      some.some(({ group }) => names(group, subject)) ||
      (isThere(some, oldest) &&
        (quarters.has(startAt) || some.some(({ group }) => !knows(readGroup(group), dimensions)))),
    (chunk) => rewrite(store, account, chunk, (totals) => anew(store, account, totals, dimensions, subject)),
  )
}

async function anew(
  store: Store,
  account: string,
  totals: readonly UsageTotal[],
  dimensions: readonly string[],
  subject: SubjectName,
): Promise<Growths | undefined> {
  const oldest = await oldestOf(store, account)
  const growths: Growths = new Map()
  const there: UsageTotal[] = []
  for (const some of Map.groupBy(totals, ({ startAt }) => startAt).values()) {
    if (isThere(some, oldest)) there.push(...some)
    else
      for (const total of some)
        growByTotal(growths, total, { ...total, group: nameless(total.group, subject) })
  }
  const starts = new Set(there.map(({ startAt }) => startAt))
  for (const span of spansOf(there)) {
    await readUses(store, account, span, (use) => {
      if (starts.has(startOf(use.usage.at, QUARTER_MS))) growByUse(growths, use, dimensions, [QUARTER_MS])
    })
  }
  // Entries that went meanwhile were not counted.
  return (await oldestOf(store, account)) === oldest ? growths : undefined
}

const isThere = (totals: readonly UsageTotal[], oldest: number): boolean =>
  totals.every(({ firstSeq }) => firstSeq >= oldest)

/** Visits the quarter hours that are chosen by their totals, some at a time, a day of totals in memory. */
async function forEachChunk(
  store: Store,
  account: string,
  choose: (totals: readonly UsageTotal[], startAt: Millis) => boolean,
  visit: (quarters: readonly Millis[]) => Promise<void>,
): Promise<void> {
  const { earliestAt, latestAt } = await store.usage(account, [])
  if (earliestAt === null || latestAt === null) return
  let chunk: Millis[] = []
  let size = 0
  for (let from = startOf(earliestAt, DAY_MS); from <= latestAt; from += DAY_MS) {
    const day: UsageRange = { spanMs: QUARTER_MS, from, to: from + DAY_MS }
    const { totals } = await store.usage(account, [day])
    for (const [startAt, some] of Map.groupBy(totals, (total) => total.startAt)) {
      if (!choose(some, startAt)) continue
      chunk.push(startAt)
      size += some.length
    }
    if (size < CHUNK) continue
    await visit(chunk)
    chunk = []
    size = 0
  }
  if (chunk.length > 0) await visit(chunk)
}

/**
 * Replaces the totals of these quarter hours, and with them those of the longer spans that they lie in. `revise` may run more than
 * once, and answers undefined where it has to.
 */
async function rewrite(
  store: Store,
  account: string,
  quarters: readonly Millis[],
  revise: (totals: readonly UsageTotal[]) => Promise<Growths | undefined>,
): Promise<void> {
  const chosen = new Set(quarters)
  const around = new Set(quarters.map((at) => startOf(at, LONGEST_MS)))
  const ranges = [...around].flatMap((from) =>
    SPANS_MS.map((spanMs) => ({ spanMs, from, to: from + LONGEST_MS })),
  )
  for (;;) {
    const { totals: before, revision, ...state } = await store.usage(account, ranges)
    const isRevised = ({ spanMs, startAt }: UsageTotal): boolean =>
      spanMs === QUARTER_MS && chosen.has(startAt)
    const growths = await revise(before.filter(isRevised))
    if (growths === undefined) continue
    const stays = (total: UsageTotal): boolean => total.spanMs === QUARTER_MS && !isRevised(total)
    for (const total of [...before.filter(stays), ...totalsOf(growths)]) {
      for (const spanMs of SPANS_MS) {
        if (spanMs === QUARTER_MS) continue
        growByTotal(growths, total, {
          spanMs,
          startAt: startOf(total.startAt, spanMs),
          group: total.group,
        })
      }
    }
    const totals = totalsOf(growths)
    const dropped = before.filter((total) => !growths.has(keyText(total)) && !stays(total))
    if (await store.keepUsage(account, revision, { ...state, totals, dropped })) return
  }
}

// --- groups

const tells = (group: string): boolean => Object.keys(readGroup(group)).some(isPrivate)

const looser = (group: string): string =>
  JSON.stringify(Object.fromEntries(Object.entries(readGroup(group)).filter(([name]) => !isPrivate(name))))

const names = (group: string, { dimension, value }: SubjectName): boolean =>
  readGroup(group)[`subject.${dimension}`] === value

const nameless = (group: string, subject: SubjectName): string =>
  names(group, subject)
    ? JSON.stringify(
        Object.fromEntries(
          Object.entries(readGroup(group)).map(([name, value]) => [name, isPrivate(name) ? null : value]),
        ),
      )
    : group
