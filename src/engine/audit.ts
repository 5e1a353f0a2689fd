/** `audit` over a store, online: accounts in parts, several parts at a time, everything told in order of account. */
import { type AccountCell, SYSTEM } from '../kernel/cells.ts'
import type { ChainHead } from '../ledger/entries.ts'
import type { Store } from '../store.ts'
import type { Millis } from '../units.ts'
import { inOrder } from './audit/in-order.ts'
import { beforeOf, partAuditor, sizeOf } from './audit/part.ts'
import type {
  AuditedAccount,
  AuditOptions,
  AuditPart,
  AuditReport,
  Caller,
  Disagreement,
} from './contract.ts'
import type { Core } from './core.ts'
import { accountUnknown } from './explain.ts'

/** A part has so many entries, if it is not one account that has more. */
const PART = { entries: 10_000, accounts: 1_000 }
/** While one part waits for the store, the other is worked out. */
const AT_ONCE = 2
/** Parts that are begun while an earlier one takes its time, times those that are worked on at once. */
const AHEAD = 8

export async function auditStore(
  core: Core,
  horizonMs: Millis,
  options: AuditOptions,
  caller: Caller,
): Promise<AuditReport> {
  const { elsewhere = partAuditor(core, horizonMs, options, caller), atOnce = AT_ONCE } = options
  const heads: Record<string, ChainHead> = {}
  const checkpoints = { resumed: 0, written: 0 }
  const retention = { accounts: 0, before: null as Millis | null, heads: 0 }
  const sums = { accounts: 0, entries: 0, disagreements: 0 }
  const gone = goneHeads(options)

  function take(audited: AuditedAccount): void {
    for (const one of gone.before(audited.account)) missed(one)
    const { account, entries, head, disagreements, found, resumed, written } = audited
    sums.accounts += 1
    sums.entries += entries
    sums.disagreements += disagreements
    checkpoints.resumed += Number(resumed)
    checkpoints.written += Number(written)
    heads[account] = head
    if (audited.headGone) retention.heads += 1
    if (audited.retainedBefore !== undefined) {
      retention.accounts += 1
      retention.before = Math.max(retention.before ?? 0, audited.retainedBefore)
    }
    for (const one of found) options.onDisagreement?.(one)
    options.onAccount?.(audited)
  }
  function missed(disagreement: Disagreement): void {
    sums.disagreements += 1
    options.onDisagreement?.(disagreement)
  }

  const parts = partsOf(core.store, options)
  for await (const part of inOrder(parts, { atOnce, ahead: atOnce * AHEAD }, elsewhere))
    for (const audited of part) take(audited)
  for (const one of gone.before(undefined)) missed(one)
  return { ...sums, checkpoints, retention, heads }
}

/** `@system` first, then the others by id. */
function before(one: string, other: string): boolean {
  if (one === SYSTEM || other === SYSTEM) return one === SYSTEM && other !== SYSTEM
  return one < other
}

/** Heads that were kept elsewhere of accounts that are not there any more, each told at its place in the order. */
function goneHeads({ heads = {}, accounts, after }: AuditOptions) {
  const names = accounts !== undefined ? [] : Object.keys(heads).sort((a, b) => (before(a, b) ? -1 : 1))
  let next = after === undefined ? 0 : names.filter((name) => !before(after, name)).length
  return {
    *before(account: string | undefined): Generator<Disagreement> {
      for (let name = names[next]; name !== undefined; name = names[next]) {
        if (account !== undefined && before(account, name)) return
        next += 1
        if (name === account) return
        yield {
          account: name,
          kind: 'head',
          message: 'a head was kept elsewhere, and the account is gone',
          seq: heads[name]?.seq ?? 0,
        }
      }
    },
  }
}

/** Accounts behind `after`, in order, as many together as make a part. */
async function* partsOf(store: Store, options: AuditOptions): AsyncGenerator<AuditPart> {
  const all = options.accounts === undefined ? accountsOf(store, options.after) : chosen(store, options)
  yield* inParts(all, options.heads)
}

export async function* inParts(
  all: AsyncIterable<AuditPart[number]>,
  heads: AuditOptions['heads'],
): AsyncGenerator<AuditPart> {
  let part: AuditPart[number][] = []
  let entries = 0
  for await (const found of all) {
    const kept = heads?.[found.account]
    const one = kept === undefined ? found : { ...found, kept }
    const size = sizeOf(one)
    if (entries + size > PART.entries && part.length > 0) {
      yield part
      part = []
      entries = 0
    }
    part.push(one)
    entries += size
    if (part.length < PART.accounts && one.account !== SYSTEM) continue
    yield part
    part = []
    entries = 0
  }
  if (part.length > 0) yield part
}

const PAGE = 1_000
const SYSTEM_PART = { account: SYSTEM, seq: 0 }

async function* accountsOf(store: Store, from: string | undefined): AsyncGenerator<AuditPart[number]> {
  if (from === undefined) yield SYSTEM_PART
  for (let after = from === SYSTEM ? undefined : from; ; ) {
    const page = await store.accounts({ limit: PAGE, ...(after === undefined ? {} : { after }) })
    for (const cell of page) yield beforeOf(cell)
    if (page.length < PAGE) return
    after = page.at(-1)?.id
  }
}

async function* chosen(
  store: Store,
  { accounts = [], after }: AuditOptions,
): AsyncGenerator<AuditPart[number]> {
  const names = [...new Set(accounts)].sort((a, b) => (before(a, b) ? -1 : 1))
  for (const name of names) {
    if (after !== undefined && !before(after, name)) continue
    if (name === SYSTEM) {
      yield SYSTEM_PART
      continue
    }
    const [found] = await store.cells(name, 'account', { limit: 1 })
    if (found === undefined) throw accountUnknown(name)
    yield beforeOf(found.cell as AccountCell)
  }
}
