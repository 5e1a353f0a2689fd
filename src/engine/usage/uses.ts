/** An account's charges as reports count them: each at the use that it is for. */
import {
  type ChargeEntry,
  type PrivatePart,
  readEntry,
  readPrivate,
  type StoredEntry,
  type UsageEntry,
} from '../../ledger/entries.ts'
import type { Store } from '../../store.ts'
import { breathe } from '../paging.ts'

/** Entries read at once: some 10 ms of parsing, between which others have their turn. */
const PAGE = 1_000

/** What one charge adds to a report, and to which use. */
export interface Use {
  readonly usage: UsageEntry
  /** Null where there is none, or it was erased. */
  readonly person: PrivatePart | null
  readonly charge: ChargeEntry
  /** Nothing for a refund; the difference where the charge corrects that of an earlier use. */
  readonly quantities: Readonly<Record<string, number>>
  /** The least number among the entries that this was read from. */
  readonly firstSeq: number
}

/**
 * Reads the charges among an account's entries from one number to another, in order, and tells each with its use. Answers how many
 * entries were usage or charges, and the number of the last of them: 0 where there was none. A charge whose use is gone is passed
 * over.
 */
export async function readUses(
  store: Store,
  account: string,
  { from, to }: { readonly from: number; readonly to?: number },
  visit: (use: Use) => void,
  most = Number.POSITIVE_INFINITY,
): Promise<{ readonly count: number; readonly last: number }> {
  const recent = new Map<number, StoredEntry>()
  const entryOf = async (seq: number): Promise<StoredEntry | undefined> =>
    (await store.entries(account, { from: seq, to: seq, limit: 1 }))[0]
  let count = 0
  let last = 0
  for (let next = from; count < most; next = last + 1) {
    const range = to === undefined ? { from: next } : { from: next, to }
    const page = await store.entries(account, { ...range, kinds: ['usage', 'charge'], limit: PAGE })
    for (const stored of page) {
      if (stored.kind === 'usage') {
        recent.set(stored.seq, stored)
        continue
      }
      const charge = readEntry(stored) as ChargeEntry
      // A refund counts where the use did; that use may stand far back.
      const used = recent.get(charge.usage) ?? (await entryOf(charge.usage))
      recent.delete(charge.usage)
      if (used !== undefined) visit(await useOf(readUsed(used), charge, entryOf))
    }
    count += page.length
    last = page.at(-1)?.seq ?? last
    if (page.length < PAGE) break
    await breathe()
  }
  return { count, last }
}

/** A use, without its charge. */
export type Used = Pick<Use, 'usage' | 'person'>

export const readUsed = (stored: StoredEntry): Used => ({
  usage: readEntry(stored) as UsageEntry,
  person: readPrivate(stored),
})

/** What a first charge adds; one that corrects another, or gives back, is told by `useOf`. */
export const firstUse = (used: Used, charge: ChargeEntry): Use => ({
  ...used,
  charge,
  quantities: used.usage.quantities,
  firstSeq: used.usage.seq,
})

export async function useOf(
  used: Used,
  charge: ChargeEntry,
  entryOf: (seq: number) => Promise<StoredEntry | undefined>,
): Promise<Use> {
  const use = firstUse(used, charge)
  const { usage } = used
  if (charge.refund !== undefined) return { ...use, quantities: {} }
  const corrected = charge.corrects === undefined ? undefined : await entryOf(charge.corrects)
  if (corrected === undefined) return use
  const { usage: earlierSeq } = readEntry(corrected) as ChargeEntry
  const earlier = await entryOf(earlierSeq)
  const before = earlier === undefined ? {} : (readEntry(earlier) as UsageEntry).quantities
  return {
    ...use,
    quantities: differenceOf(usage.quantities, before),
    firstSeq: Math.min(usage.seq, corrected.seq, earlierSeq),
  }
}

function differenceOf(
  quantities: Readonly<Record<string, number>>,
  before: Readonly<Record<string, number>>,
): Record<string, number> {
  const names = new Set([...Object.keys(quantities), ...Object.keys(before)])
  return Object.fromEntries(
    [...names].map((name) => [name, (owned(quantities, name) ?? 0) - (owned(before, name) ?? 0)]),
  )
}

/** What a use is grouped by: `feature`, `endpoint`, `subject.<dimension>`, `attributes.<name>`; null where it has none. */
export function groupOf({ usage, person }: Use, names: readonly string[]): Record<string, string | null> {
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

/** Whether a name stands in the part of an entry that can be erased. */
export const isPrivate = (name: string): boolean => name !== 'feature' && name !== 'endpoint'

/** Names are callers' own, so that no object may lend them what it inherits. */
const owned = <T>(record: Readonly<Record<string, T>>, name: string): T | undefined =>
  Object.hasOwn(record, name) ? record[name] : undefined

// --- where to read

/** The number of the oldest entry that is there: those before it may have been dropped. */
export async function oldestOf(store: Store, account: string): Promise<number> {
  const [oldest] = await store.entries(account, { limit: 1 })
  return oldest?.seq ?? Infinity
}

/** Entries between two spans that are read rather than passed over. */
const NEAR = 100

/** Spans of numbers as few that do not overlap. */
export function spansOf(
  counted: readonly { readonly firstSeq: number; readonly lastSeq: number }[],
): readonly { readonly from: number; readonly to: number }[] {
  const spans: { readonly from: number; to: number }[] = []
  for (const { firstSeq, lastSeq } of counted.toSorted((a, b) => a.firstSeq - b.firstSeq)) {
    const last = spans.at(-1)
    if (last === undefined || firstSeq > last.to + NEAR) spans.push({ from: firstSeq, to: lastSeq })
    else last.to = Math.max(last.to, lastSeq)
  }
  return spans
}
