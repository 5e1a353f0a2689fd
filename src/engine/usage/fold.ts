/**
 * Folding: what an account's charges add up to is kept in totals, a bounded number of entries at a time, so that a report reads
 * the totals and only the entries after them. A total says nothing that the entries do not say.
 */
import type { AccountCell } from '../../kernel/cells.ts'
import type { Store, UsageRange, UsageState, UsageTotal } from '../../store.ts'
import type { Millis } from '../../units.ts'
import type { Core } from '../core.ts'
import { type Growths, growByTotal, growByUse, keyText, totalsOf } from './sums.ts'
import { readUses } from './uses.ts'

/** Usage and charge entries counted at once: one transaction of some hundred totals. */
const STEP = 5_000

/** So many entries after the totals are worth folding. */
export const FOLD_FROM = 500

/**
 * Counts every entry of an account that no total counts yet. Any number of nodes may do so at once: of two who count the same
 * entries one is heard, and the other goes on behind it. Answers the number up to which totals stand.
 */
export async function foldUsage(
  core: Core,
  account: string,
  stopped: () => boolean = () => false,
): Promise<number> {
  const dimensions = await dimensionsOf(core, account)
  for (;;) {
    const { through, more } = await foldStep(core.store, account, dimensions)
    if (!more || stopped()) return through
  }
}

/** The dimensions that the policy in force names. */
export function dimensionsOf(core: Core, account: string): Promise<readonly string[]> {
  return core.run(account, ['account'], (_, env) => ({
    result: { ok: env.policy.active.usageDimensions },
    writes: [],
    entries: [],
  }))
}

async function foldStep(
  store: Store,
  account: string,
  dimensions: readonly string[],
): Promise<{ readonly through: number; readonly more: boolean }> {
  // Before the entries are read: whoever changes them takes the revision away from under this.
  const state = await store.usage(account, [])
  const growths: Growths = new Map()
  const from = state.through + 1
  const { count, last } = await readUses(
    store,
    account,
    { from },
    (use) => growByUse(growths, use, dimensions),
    STEP,
  )
  if (count === 0) return { through: state.through, more: false }
  const kept = await store.usage(account, rangesOf([...growths.values()]))
  for (const total of kept.totals) if (growths.has(keyText(total))) growByTotal(growths, total)
  const totals = totalsOf(growths)
  const change = { ...reachOf(state, totals), through: last, totals, dropped: [] }
  const done = await store.keepUsage(account, state.revision, change)
  return done ? { through: last, more: count >= STEP } : { through: state.through, more: true }
}

/** The times that these totals are of, each once. */
export function rangesOf(
  totals: readonly { readonly spanMs: Millis; readonly startAt: Millis }[],
): UsageRange[] {
  const ranges = new Map<string, UsageRange>()
  for (const { spanMs, startAt } of totals)
    ranges.set(`${spanMs} ${startAt}`, { spanMs, from: startAt, to: startAt + spanMs })
  return [...ranges.values()]
}

/** Between which instants totals begin, with these. */
export function reachOf(
  { earliestAt, latestAt }: UsageState,
  totals: readonly UsageTotal[],
): Pick<UsageState, 'earliestAt' | 'latestAt'> {
  let earliest = earliestAt
  let latest = latestAt
  for (const { startAt } of totals) {
    earliest = Math.min(earliest ?? startAt, startAt)
    latest = Math.max(latest ?? startAt, startAt)
  }
  return { earliestAt: earliest, latestAt: latest }
}

export interface Folder {
  /** Folds an account behind the back of whoever asks; what goes wrong is left for the next time. */
  soon(account: string): void
  /** Folds it where many of its entries are not counted yet. */
  tidy(account: AccountCell): Promise<void>
  /** Waits for what is under way. */
  close(): Promise<void>
}

export function createFolder(core: Core): Folder {
  const folding = new Map<string, Promise<unknown>>()
  let closed = false

  function fold(account: string): Promise<unknown> {
    let work = folding.get(account)
    if (work === undefined) {
      work = foldUsage(core, account, () => closed)
        .catch(() => {})
        .finally(() => folding.delete(account))
      folding.set(account, work)
    }
    return work
  }
  return {
    soon(account) {
      if (!closed) fold(account)
    },
    async tidy({ id, head }) {
      if (closed || head.seq < FOLD_FROM) return
      const { through } = await core.store.usage(id, [])
      if (head.seq - through >= FOLD_FROM) await fold(id)
    },
    async close() {
      closed = true
      await Promise.all(folding.values())
    },
  }
}
