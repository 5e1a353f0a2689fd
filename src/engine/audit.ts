/** `audit` over a store, online: one account after the other, each read up to one moment and held against its cells there. */
import {
  type AccountCell,
  type Cell,
  type KeyCell,
  type PolicyCell,
  type RequestCell,
  SYSTEM,
  type SystemCell,
} from '../kernel/cells.ts'
import { writeCheckpoint } from '../kernel/checkpoint.ts'
import { auditSystem, type SystemAudit } from '../ledger/audit/system.ts'
import {
  type AccountAudit,
  auditAccount,
  type Checkpoint,
  type Finding,
  type AuditOptions as LedgerOptions,
  readCheckpoint,
} from '../ledger/audit.ts'
import type { ChainHead, StoredEntry } from '../ledger/entries.ts'
import type { RateCard } from '../ledger/price.ts'
import { compilePolicy } from '../policy/compile.ts'
import type { AccountSnapshot, Store } from '../store.ts'
import { formatMicros, type Millis } from '../units.ts'
import type { AuditOptions, AuditReport, Caller, Disagreement } from './contract.ts'
import { type Core, contextOf, sha256 } from './core.ts'
import { accountUnknown } from './explain.ts'

const PAGE = 1_000
/** A checkpoint is one text: of an account with more requests within the horizon, some 150 MB, none is written. */
const MAX_REQUESTS = 1_000_000

export async function auditStore(
  core: Core,
  horizonMs: Millis,
  options: AuditOptions,
  caller: Caller,
): Promise<AuditReport> {
  const { store } = core
  const heads: Record<string, ChainHead> = {}
  let accounts = 0
  let entries = 0
  let disagreements = 0
  const checkpoints = { resumed: 0, written: 0 }
  const found = (finding: Finding): void => {
    disagreements += 1
    options.onDisagreement?.(told(finding))
  }
  const rateCard = rateCards(await policiesOf(store))
  const run = { core, caller, options, checkpoints, prices: { sha256, rateCard, horizonMs, found } }
  for await (const account of accountsOf(store, options.accounts)) {
    const head = options.heads?.[account]
    const audit =
      account === SYSTEM
        ? await auditAll(store, auditSystem({ sha256, head, found }))
        : await auditOne(run, account)
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
  return { accounts, entries, disagreements, checkpoints, heads }
}

interface Run {
  readonly core: Core
  readonly caller: Caller
  readonly options: AuditOptions
  readonly prices: Omit<LedgerOptions, 'head' | 'resume' | 'verify'>
  readonly checkpoints: { resumed: number; written: number }
}

async function auditOne(run: Run, account: string): Promise<AccountAudit> {
  const { options, checkpoints } = run
  const { store } = run.core
  // Read before anything else: a checkpoint is written only where nobody was erased since.
  const before = await accountCellOf(store, account)
  const checkpoint = before === undefined ? undefined : await checkpointOf(store, before)
  const head = options.heads?.[account]
  const resume = options.fromCheckpoints && reaches(checkpoint, head) ? checkpoint : undefined
  const verify = resume === undefined ? checkpoint : undefined
  const audit = auditAccount(account, { ...run.prices, head, resume, verify })
  const live = options.writeCheckpoints ? await requestIds(store, account) : undefined
  const whole = await readWhole(store, account, audit)
  if (whole.account === null) throw accountUnknown(account)
  // Cells that changed after the snapshot are newer than the entries that were read, and the audit passes over them.
  for await (const cell of cellsOf(store, account, 'request:')) audit.request(cell as RequestCell)
  audit.finish({
    account: whole.account as AccountCell,
    subjects: whole.subjects,
    holds: whole.holds,
    grants: whole.grants,
  })
  if (resume !== undefined) checkpoints.resumed += 1
  if (live !== undefined && before !== undefined && (await keep(run, before, audit, live)))
    checkpoints.written += 1
  return audit
}

/** A head that was kept elsewhere lies after the checkpoint, or at it: one before it can be compared only from the start. */
const reaches = (checkpoint: Checkpoint | undefined, head: ChainHead | undefined): boolean =>
  checkpoint !== undefined && (head === undefined || head.seq >= checkpoint.head.seq)

/** Writes a checkpoint of an account that is sound and has moved since its last one. */
async function keep(
  { core, caller }: Run,
  before: AccountCell,
  audit: AccountAudit,
  live: ReadonlySet<string>,
): Promise<boolean> {
  if (audit.disagreements > 0 || audit.head.seq === before.checkpoint) return false
  const { head, state } = audit.standing(live)
  if (state.requests.length > MAX_REQUESTS) return false
  const { id: account, checkpoint, erased } = before
  const op = { account, head, state, checkpoint, erased }
  const context = contextOf(caller)
  const { written } = await core.run(account, ['account'], (cells, env) =>
    writeCheckpoint(cells, env, context, op),
  )
  return written
}

async function accountCellOf(store: Store, account: string): Promise<AccountCell | undefined> {
  const [found] = await store.cells(account, 'account', { limit: 1 })
  return found?.cell as AccountCell | undefined
}

async function checkpointOf(store: Store, { id, checkpoint }: AccountCell): Promise<Checkpoint | undefined> {
  if (checkpoint === undefined) return undefined
  const [stored] = await store.entries(id, { from: checkpoint, to: checkpoint, limit: 1 })
  return stored === undefined ? undefined : readCheckpoint(stored, sha256)
}

async function requestIds(store: Store, account: string): Promise<ReadonlySet<string>> {
  const ids = new Set<string>()
  for await (const cell of cellsOf(store, account, 'request:')) ids.add((cell as RequestCell).id)
  return ids
}

async function auditAll(store: Store, audit: SystemAudit): Promise<SystemAudit> {
  const whole = await readWhole(store, SYSTEM, audit)
  for await (const cell of cellsOf(store, SYSTEM, 'policy:')) audit.policy(cell as PolicyCell)
  for await (const cell of cellsOf(store, SYSTEM, 'key:')) audit.key(cell as KeyCell)
  if (whole.account !== null) audit.finish(whole.account as SystemCell)
  return audit
}

/** Feeds all entries after the audit's head up to one moment, and answers the cells as they stood then. */
async function readWhole(
  store: Store,
  account: string,
  audit: { entry(stored: StoredEntry): void; readonly head: ChainHead },
): Promise<AccountSnapshot> {
  let last = audit.head.seq
  for (;;) {
    const page = await store.entries(account, { from: last + 1, limit: PAGE })
    for (const stored of page) audit.entry(stored)
    last = page.at(-1)?.seq ?? last
    if (page.length < PAGE) break
  }
  const whole = await store.snapshot(account, last)
  for (const stored of whole.entries) audit.entry(stored)
  return whole
}

async function* cellsOf(store: Store, account: string, prefix: string): AsyncGenerator<Cell> {
  for (let after: string | undefined; ; ) {
    const page = await store.cells(account, prefix, {
      limit: PAGE,
      ...(after === undefined ? {} : { after }),
    })
    for (const { cell } of page) yield cell
    if (page.length < PAGE) return
    after = page.at(-1)?.key
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
  for await (const cell of cellsOf(store, SYSTEM, 'policy:')) {
    const { version, text } = cell as PolicyCell
    texts.set(version, text)
  }
  return texts
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
