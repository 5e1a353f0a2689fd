/** `audit` over a store, online: one account after the other, each read up to one moment and held against its cells there. */
import { type AccountCell, type PolicyCell, SYSTEM, type SystemCell } from '../kernel/cells.ts'
import { emptyCounters } from '../kernel/draft.ts'
import {
  type AccountAudit,
  auditAccount,
  type Finding,
  type LiveAccount,
  type LiveRequest,
} from '../ledger/audit.ts'
import { emptyBooks } from '../ledger/books.ts'
import type { ChainHead } from '../ledger/entries.ts'
import type { RateCard } from '../ledger/price.ts'
import { compilePolicy } from '../policy/compile.ts'
import type { Store } from '../store.ts'
import { formatMicros, type Millis } from '../units.ts'
import type { AuditOptions, AuditReport, Disagreement } from './contract.ts'
import { sha256 } from './core.ts'
import { accountUnknown } from './explain.ts'

const PAGE = 1_000

export async function auditStore(
  store: Store,
  horizonMs: Millis,
  options: AuditOptions,
): Promise<AuditReport> {
  const heads: Record<string, ChainHead> = {}
  let accounts = 0
  let entries = 0
  let disagreements = 0
  const found = (finding: Finding): void => {
    disagreements += 1
    options.onDisagreement?.(told(finding))
  }
  const rateCard = rateCards(await policiesOf(store))
  for await (const account of accountsOf(store, options.accounts)) {
    const head = options.heads?.[account]
    const audit = auditAccount(account, { sha256, rateCard, horizonMs, head, found })
    await auditOne(store, account, audit)
    accounts += 1
    entries += audit.entries
    heads[account] = audit.head
    options.onAccount?.(account, audit.entries)
  }
  for (const account of Object.keys(options.heads ?? {})) {
    if (heads[account] !== undefined || options.accounts?.includes(account) === false) continue
    found({
      account,
      kind: 'head',
      message: 'a head was kept elsewhere, and the account is gone',
      seq: options.heads?.[account]?.seq ?? 0,
    })
  }
  return { accounts, entries, disagreements, heads }
}

async function auditOne(store: Store, account: string, audit: AccountAudit): Promise<void> {
  let last = 0
  for (;;) {
    const page = await store.entries(account, { from: last + 1, limit: PAGE })
    for (const stored of page) audit.entry(stored)
    last = page.at(-1)?.seq ?? last
    if (page.length < PAGE) break
  }
  const whole = await store.snapshot(account, last)
  for (const stored of whole.entries) audit.entry(stored)
  if (whole.account === null) {
    if (account === SYSTEM) return
    throw accountUnknown(account)
  }
  if (account === SYSTEM)
    return audit.finish({ account: plain(whole.account as SystemCell), subjects: [], holds: [] })
  // Cells that changed after the snapshot are newer than the entries that were read, and the audit passes over them.
  for (let after: string | undefined; ; ) {
    const page = await store.cells(account, 'request:', {
      limit: PAGE,
      ...(after === undefined ? {} : { after }),
    })
    for (const { cell } of page) audit.request(cell as LiveRequest)
    if (page.length < PAGE) break
    after = page.at(-1)?.key
  }
  audit.finish({
    account: whole.account as AccountCell,
    subjects: whole.subjects,
    holds: whole.holds,
    grants: whole.grants,
  })
}

/** `@system` has a chain and nothing to count. */
function plain(cell: SystemCell): LiveAccount {
  return {
    id: cell.id,
    plan: '',
    status: '',
    zone: '',
    lastAt: cell.lastAt,
    head: cell.head,
    counters: emptyCounters(),
    grants: [],
    books: emptyBooks(),
    subjectCounts: {},
    overrides: {},
    openHolds: 0,
    dueAt: null,
  }
}

async function* accountsOf(store: Store, chosen: readonly string[] | undefined): AsyncGenerator<string> {
  if (chosen !== undefined) return yield* chosen
  yield SYSTEM
  for (let after: string | undefined; ; ) {
    const page = await store.accounts({ limit: PAGE, ...(after === undefined ? {} : { after }) })
    for (const { id } of page) yield id
    if (page.length < PAGE) return
    after = page.at(-1)?.id
  }
}

async function policiesOf(store: Store): Promise<ReadonlyMap<number, string>> {
  const texts = new Map<number, string>()
  for (let after: string | undefined; ; ) {
    const page = await store.cells(SYSTEM, 'policy:', {
      limit: PAGE,
      ...(after === undefined ? {} : { after }),
    })
    for (const { cell } of page) texts.set((cell as PolicyCell).version, (cell as PolicyCell).text)
    if (page.length < PAGE) return texts
    after = page.at(-1)?.key
  }
}

/** Versions are compiled as charges name them. */
function rateCards(
  texts: ReadonlyMap<number, string>,
): (version: number, feature: string) => RateCard | undefined {
  const compiled = new Map<number, ReturnType<typeof compilePolicy>>()
  return (version, feature) => {
    const text = texts.get(version)
    if (text === undefined) return undefined
    let policy = compiled.get(version)
    if (policy === undefined) {
      policy = compilePolicy(version, text)
      compiled.set(version, policy)
    }
    return policy.features.get(feature)?.card
  }
}

function told({ account, kind, message, seq, request, amount }: Finding): Disagreement {
  return {
    account,
    kind,
    message,
    ...(seq === undefined ? {} : { seq }),
    ...(request === undefined ? {} : { request }),
    ...(amount === undefined ? {} : { amount: formatMicros(amount) }),
  }
}
