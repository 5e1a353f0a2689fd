/** Audits some accounts, one after the other: small ones many in one read, large ones page by page. */
import { SluiceError } from '../../errors.ts'
import {
  type AccountCell,
  type Cell,
  type GrantCell,
  type KeyCell,
  type PolicyCell,
  type RequestCell,
  type SubjectCell,
  SYSTEM,
  type SystemCell,
} from '../../kernel/cells.ts'
import { writeCheckpoint, writeRetained } from '../../kernel/checkpoint.ts'
import { auditSystem } from '../../ledger/audit/system.ts'
import {
  type AccountAudit,
  auditAccount,
  type Checkpoint,
  type Comparison,
  type Finding,
  readCheckpoint,
  readRetained,
  teller,
} from '../../ledger/audit.ts'
import type { ChainHead, StoredEntry } from '../../ledger/entries.ts'
import type { AccountSnapshot, Moment, Store, UsageState } from '../../store.ts'
import { formatMicros, type Millis } from '../../units.ts'
import type { AuditedAccount, AuditMeans, AuditPart, Caller, Disagreement } from '../contract.ts'
import { type Core, contextOf, sha256 } from '../core.ts'
import { accountUnknown } from '../explain.ts'
import { type Prices, readPrices } from './prices.ts'
import { auditTotals, type TotalsAudit } from './totals.ts'

const PAGE = 1_000
/** Accounts with up to so many entries are read together, up to so many accounts and entries of them at once. */
const SMALL = 500
const TOGETHER = { accounts: 100, entries: 2_000 }
/** A checkpoint is one text: of an account with more requests within the horizon, some 150 MB, none is written. */
const MAX_REQUESTS = 1_000_000
/** Of one account so many disagreements are told one by one, and all are counted. */
const MAX_TOLD = 10_000

type Before = AuditPart[number]

interface Run {
  readonly core: Core
  readonly caller: Caller
  readonly means: AuditMeans
  readonly horizonMs: Millis
  readonly prices: Prices
  /** Of `@system`: entries before this may have been let go. */
  readonly retainedBefore: Millis | undefined
}

export type AuditsParts = (part: AuditPart) => Promise<readonly AuditedAccount[]>

/** The policies are read once for all parts. */
export function partAuditor(core: Core, horizonMs: Millis, means: AuditMeans, caller: Caller): AuditsParts {
  let prices: Promise<Prices> | undefined
  return async (part) => {
    prices ??= readPrices(core.store)
    // Read for each part, whose accounts were looked at before: none of them can have been let go under a later record.
    const retainedBefore = await retainedBeforeOf(core.store)
    const run = { core, caller, means, horizonMs, prices: await prices, retainedBefore }
    const audited: AuditedAccount[] = []
    for (const group of groupsOf(part)) {
      const [first] = group
      if (group.length > 1) audited.push(...(await auditTogether(run, group)))
      else if (first !== undefined) audited.push(await auditAlone(run, first))
    }
    return audited
  }
}

/** An account's own cell as far as its audit must have seen it before everything else. */
export const beforeOf = ({ id, head, checkpoint, erased, retained }: AccountCell): Before => ({
  account: id,
  seq: head.seq,
  ...(checkpoint === undefined ? {} : { checkpoint }),
  ...(erased === undefined ? {} : { erased }),
  ...(retained === undefined ? {} : { retained }),
})
/** Entries that there are to read. */
export const sizeOf = ({ seq, retained }: Before): number => seq - (retained?.asOf ?? 0)

function groupsOf(part: AuditPart): readonly Before[][] {
  const groups: Before[][] = []
  let room = 0
  for (const before of part) {
    const last = groups.at(-1)
    const size = sizeOf(before)
    const small = size <= SMALL && before.account !== SYSTEM
    if (small && last !== undefined && last.length < TOGETHER.accounts && room >= size) last.push(before)
    else {
      groups.push([before])
      room = small ? TOGETHER.entries : 0
    }
    room -= size
  }
  return groups
}

/** Gathers what is found in one account. */
function listen(account: string) {
  const found: Disagreement[] = []
  let disagreements = 0
  return {
    note(finding: Finding): void {
      disagreements += 1
      if (found.length < MAX_TOLD) found.push(told(finding))
    },
    about: (audit: { readonly entries: number; readonly head: ChainHead }): AuditedAccount => ({
      account,
      entries: audit.entries,
      head: audit.head,
      disagreements,
      found,
      resumed: false,
      written: false,
    }),
  }
}

/** What an account's audit may begin at: its newest checkpoint, and what stood when older entries were let go. */
interface Known {
  readonly checkpoint: Checkpoint | undefined
  readonly base: Checkpoint | undefined
  /** Where its totals of usage stand, read before its entries. */
  readonly usage: UsageState
}

function begin(
  { core, means, prices, horizonMs, retainedBefore }: Run,
  { account, kept: head, retained, edge }: Before,
  { checkpoint, base, usage }: Known,
) {
  const from = base?.head.seq ?? 0
  const usable = checkpoint !== undefined && checkpoint.head.seq >= from ? checkpoint : undefined
  const resumed = means.fromCheckpoints === true && reaches(usable, head)
  const heard = listen(account)
  const { rateCard } = prices
  const resume = resumed ? usable : base
  const begun = Math.max(resume?.head.seq ?? 0, retained?.asOf ?? 0)
  const totals = auditTotals(core.store, account, usage, begun, teller(account, heard.note))
  const audit = auditAccount(account, {
    ...{ sha256, rateCard, horizonMs, head, edge },
    resume,
    verify: resumed ? undefined : usable,
    found: heard.note,
    read: totals?.read,
  })
  if (retained !== undefined) {
    const { seq, before } = retained
    const until = Temporal.Instant.fromEpochMilliseconds(before).toString()
    if (base !== undefined && base.head.seq !== retained.asOf)
      heard.note({
        account,
        kind: 'account',
        message: `the account's journal begins behind entry ${retained.asOf} by its cell, and behind ${base.head.seq} by its entry`,
        seq,
      })
    if (base === undefined)
      heard.note({
        account,
        kind: 'checkpoint',
        message: `entries before ${until} were let go, and what they added up to cannot be read`,
        seq,
      })
    if (retainedBefore === undefined || before > retainedBefore)
      heard.note({
        account,
        kind: 'account',
        message: `entries before ${until} were let go by the account, and @system has no record of it`,
        seq,
      })
  }
  const about = {
    resumed,
    ...(base === undefined || retained === undefined ? {} : { retainedBefore: retained.before }),
    ...(head !== undefined && head.seq < from ? { headGone: true as const } : {}),
  }
  return { audit, totals, heard, about }
}

/** A head that was kept elsewhere lies after the checkpoint, or at it: one before it can be compared only from the start. */
const reaches = (checkpoint: Checkpoint | undefined, head: ChainHead | undefined): boolean =>
  checkpoint !== undefined && (head === undefined || head.seq >= checkpoint.head.seq)

/** Small accounts: all that they have, of all of them, in one short read. */
async function auditTogether(run: Run, group: readonly Before[]): Promise<AuditedAccount[]> {
  const { core, prices, means } = run
  const checkpoints = means.fromCheckpoints
    ? await Promise.all(group.map((before) => checkpointOf(core.store, before)))
    : []
  const asked = group.map(({ account, kept, retained }, place) => {
    const checkpoint = checkpoints[place]
    const from = retained?.asOf ?? 0
    const resumed = checkpoint !== undefined && checkpoint.head.seq >= from && reaches(checkpoint, kept)
    return { account, afterSeq: resumed ? checkpoint.head.seq : from }
  })
  const usages = await Promise.all(group.map(({ account }) => core.store.usage(account, [])))
  const all = await core.store.snapshots(asked, SMALL)
  await prices.catchUp()
  return Promise.all(
    group.map((before, place) => {
      const snapshot = all[place] as AccountSnapshot
      const { entries } = snapshot
      const checkpoint = checkpoints[place] ?? readOf(entries, before.checkpoint, readCheckpoint)
      const base = readOf(entries, before.retained?.seq, readRetained)
      // Damage, or an account that has moved: read for itself it is seen from where it can be.
      const odd = before.retained !== undefined && base?.head.seq !== before.retained.asOf
      return snapshot.whole && snapshot.account !== null && !odd
        ? auditSnapshot(run, before, { checkpoint, base, usage: usages[place] as UsageState }, snapshot)
        : auditAlone(run, before)
    }),
  )
}

function readOf(
  entries: readonly StoredEntry[],
  seq: number | undefined,
  read: typeof readCheckpoint,
): Checkpoint | undefined {
  const stored = seq === undefined ? undefined : entries.find((one) => one.seq === seq)
  return stored === undefined ? undefined : read(stored, sha256)
}

async function auditSnapshot(
  run: Run,
  before: Before,
  known: Known,
  { account, subjects, grants, requests, entries }: AccountSnapshot,
): Promise<AuditedAccount> {
  const { audit, totals, heard, about } = begin(run, before, known)
  const needs = needsOf(before)
  const from = audit.head.seq
  for (const stored of entries) if (stored.seq > from) audit.entry(stored)
  for (const request of requests) {
    audit.lives(request.id)
    audit.request(request)
    needs.note(request)
  }
  const holds = requests.filter(({ expiresAt }) => expiresAt !== null)
  audit.finish({ account: account as AccountCell, subjects, holds, grants })
  await totals?.end(audit.head)
  return concluded(run, before, audit, { ...heard.about(audit), ...about, ...needs.found() })
}

async function auditAlone(run: Run, before: Before): Promise<AuditedAccount> {
  if (before.account === SYSTEM) return auditSystemAlone(run, before)
  const { core, means } = run
  const { store } = core
  const { account } = before
  const base = await readAt(store, account, before.retained?.seq, readRetained)
  const moved = base === undefined ? await movedOn(run, before) : undefined
  if (moved !== undefined) return auditAlone(...moved)
  const checkpoint = await readAt(store, account, before.checkpoint, readCheckpoint)
  const usage = await store.usage(account, [])
  const { audit, totals, heard, about } = begin(run, before, { checkpoint, base, usage })
  const needs = needsOf(before)
  await readPages(run, account, audit, totals)
  if (means.writeCheckpoints || means.retain !== undefined)
    for await (const cell of cellsOf(store, account, 'request:')) audit.lives((cell as RequestCell).id)
  const cells = await store.snapshot(account, async (moment) => {
    await readRest(run, moment, audit)
    if (moment.account === null) throw accountUnknown(account)
    return compareMoment(moment, audit.compare(moment.account as AccountCell))
  })
  // Cells that changed after that moment are newer than the entries that were read, and the audit passes over them.
  for await (const cell of cellsOf(store, account, 'grant:')) cells.grant(cell as GrantCell)
  cells.end(true)
  for await (const cell of cellsOf(store, account, 'request:')) {
    audit.request(cell as RequestCell)
    needs.note(cell as RequestCell)
  }
  await totals?.end(audit.head)
  return concluded(run, before, audit, { ...heard.about(audit), ...about, ...needs.found() })
}

/** What stood when older entries were let go has been written anew since the account was looked at, and the one before it erased. */
async function movedOn(run: Run, before: Before): Promise<[Run, Before] | undefined> {
  const { account, retained, kept, edge } = before
  if (retained === undefined) return undefined
  const { store } = run.core
  const [own] = await store.cells(account, 'account', { limit: 1 })
  const now = own === undefined ? undefined : beforeOf(own.cell as AccountCell)
  if (now?.retained === undefined || now.retained.seq === retained.seq) return undefined
  return [
    { ...run, retainedBefore: await retainedBeforeOf(store) },
    { ...now, ...(kept === undefined ? {} : { kept }), ...(edge === undefined ? {} : { edge }) },
  ]
}

async function retainedBeforeOf(store: Store): Promise<Millis | undefined> {
  const [own] = await store.cells(SYSTEM, 'account', { limit: 1 })
  return (own?.cell as SystemCell | undefined)?.retainedBefore
}

async function auditSystemAlone(run: Run, { kept }: Before): Promise<AuditedAccount> {
  const { store } = run.core
  const heard = listen(SYSTEM)
  const audit = auditSystem({ sha256, head: kept, found: heard.note })
  await readPages(run, SYSTEM, audit)
  const own = await store.snapshot(SYSTEM, async (moment) => {
    await readRest(run, moment, audit)
    return moment.account as SystemCell | null
  })
  for await (const cell of cellsOf(store, SYSTEM, 'policy:')) audit.policy(cell as PolicyCell)
  for await (const cell of cellsOf(store, SYSTEM, 'key:')) audit.key(cell as KeyCell)
  if (own !== null) audit.finish(own)
  return heard.about(audit)
}

interface ReadsEntries {
  entry(stored: StoredEntry): void
  readonly head: ChainHead
}

/** Feeds the entries after the audit's head; the next page is on its way while one is looked at. */
async function readPages(
  { core, prices }: Run,
  account: string,
  audit: ReadsEntries,
  totals?: TotalsAudit,
): Promise<void> {
  const page = (after: number) => core.store.entries(account, { from: after + 1, limit: PAGE })
  for (let next = page(audit.head.seq), more = true; more; ) {
    const entries = await next
    const last = entries.at(-1)
    more = entries.length === PAGE && last !== undefined
    if (more) {
      next = page(last?.seq as number)
      // Told when it is waited for.
      next.catch(() => {})
    }
    await prices.catchUp()
    for (const stored of entries) audit.entry(stored)
    await totals?.catchUp()
  }
}

/** Feeds what was written since, up to the moment. */
async function readRest({ prices }: Run, moment: Moment, audit: ReadsEntries): Promise<void> {
  for (let last = audit.head.seq; ; ) {
    const entries = await moment.entries({ from: last + 1, limit: PAGE })
    await prices.catchUp(moment.policy)
    for (const stored of entries) audit.entry(stored)
    last = entries.at(-1)?.seq ?? last
    if (entries.length < PAGE) return
  }
}

async function compareMoment(moment: Moment, cells: Comparison): Promise<Comparison> {
  for (let after: RequestCell | undefined; ; ) {
    const page = await moment.holds(after, PAGE)
    for (const request of page) cells.hold(request)
    after = page.at(-1)
    if (page.length < PAGE) break
  }
  for (let after: string | undefined; ; ) {
    const page = await moment.subjects({ limit: PAGE, ...(after === undefined ? {} : { after }) })
    for (const { cell } of page) cells.subject(cell as SubjectCell)
    after = page.at(-1)?.key
    if (page.length < PAGE) return cells
  }
}

/** A request is answered again from its entries for as long as it has a cell. */
function needsOf({ edge }: Before) {
  let found: AuditedAccount['needs']
  return {
    note({ id, seqs, charge, refunds }: RequestCell): void {
      if (edge === undefined) return
      const { decision, step, last } = seqs
      for (const seq of [decision, step, last, charge?.usageSeq, charge?.seq, ...refunds.map(([, at]) => at)])
        if (seq !== undefined && seq <= edge) found = { request: id, seq }
    },
    found: () => (found === undefined ? {} : { needs: found }),
  }
}

async function concluded(
  run: Run,
  before: Before,
  audit: AccountAudit,
  audited: AuditedAccount,
): Promise<AuditedAccount> {
  if (audit.disagreements > 0 || audited.disagreements > 0) return audited
  if (run.means.retain !== undefined)
    return { ...audited, written: await letGo(run, before, audit, audited, run.means.retain) }
  return { ...audited, written: await keep(run, before, audit) }
}

/** Writes down what stood, so that the entries before may go; answers false where they may not, or it has been written. */
async function letGo(
  { core, caller }: Run,
  { account, erased, retained }: Before,
  audit: AccountAudit,
  { needs }: AuditedAccount,
  before: Millis,
): Promise<boolean> {
  const standing = needs === undefined ? audit.atEdge() : undefined
  if (standing === undefined) return false
  const { head, state } = standing
  if (state.requests.length > MAX_REQUESTS) throw tooMany(account, state.requests.length)
  const op = { account, head, state, before, retained: retained?.seq, erased }
  const context = contextOf(caller)
  const { written } = await core.run(account, ['account'], (cells, env) =>
    writeRetained(cells, env, context, op),
  )
  return written
}

const tooMany = (account: string, requests: number): SluiceError =>
  new SluiceError(
    'conflict',
    `${account} has ${requests} requests that are spoken of on both sides of the instant`,
    {
      path: `/${account}`,
      remedy: `name another month: what stands behind it may have up to ${MAX_REQUESTS}`,
    },
  )

/** Writes a checkpoint of an account that is sound and has moved since its last one. */
async function keep(
  { core, caller, means }: Run,
  { account, checkpoint, erased }: Before,
  audit: AccountAudit,
): Promise<boolean> {
  if (!means.writeCheckpoints || audit.head.seq === checkpoint) return false
  const { head, state } = audit.standing()
  if (state.requests.length > MAX_REQUESTS) return false
  const op = { account, head, state, checkpoint, erased }
  const context = contextOf(caller)
  const { written } = await core.run(account, ['account'], (cells, env) =>
    writeCheckpoint(cells, env, context, op),
  )
  return written
}

const checkpointOf = (store: Store, { account, checkpoint }: Before): Promise<Checkpoint | undefined> =>
  readAt(store, account, checkpoint, readCheckpoint)

async function readAt(
  store: Store,
  account: string,
  seq: number | undefined,
  read: typeof readCheckpoint,
): Promise<Checkpoint | undefined> {
  if (seq === undefined) return undefined
  return readOf(await store.entries(account, { from: seq, to: seq, limit: 1 }), seq, read)
}

async function* cellsOf(store: Store, account: string, prefix: string): AsyncGenerator<Cell> {
  const page = (after: string | undefined) =>
    store.cells(account, prefix, { limit: PAGE, ...(after === undefined ? {} : { after }) })
  for (let next = page(undefined), more = true; more; ) {
    const found = await next
    more = found.length === PAGE
    if (more) {
      next = page(found.at(-1)?.key)
      next.catch(() => {})
    }
    for (const { cell } of found) yield cell
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
