/**
 * The audit: an account's journal worked out again, entry by entry, and held against its live cells.
 *
 * Everything follows from the entries: what each use costs by its rate card, where the money went, what must be left of each
 * grant, used of each window and held for each request. Where the cells or the entries say something else, it is told, with
 * account, request and amount. Nothing here changes anything, and no damage makes it fail.
 *
 * What it cannot see: counts of rates, which leave no entries; a live window that has gone from its cell without any decision
 * having told its end; and, where a person was erased, what of a shared window was theirs: there the sums are only bounds.
 */
import type { Micros, Millis } from '../units.ts'
import { type Comparison, compareRequest, openComparison } from './audit/cells.ts'
import { type Link, openChain } from './audit/chain.ts'
import { checkUncharged, type Prices, readCharge, readUsage } from './audit/charges.ts'
import { type Checkpoint, journalAt, stateOf } from './audit/checkpoint.ts'
import { type Finding, guarded, type Tell, teller } from './audit/findings.ts'
import { emptyJournal, erasedHolder, holderOf, type Journal } from './audit/journal.ts'
import type { LiveAccount, LiveCells, LiveRequest } from './audit/live.ts'
import {
  checkFunding,
  closeCharge,
  type OpenCharge,
  openCharge,
  readGrant,
  readRevocation,
  readTransfer,
} from './audit/money.ts'
import { checkLink, readClosing, readDecision, storyOf } from './audit/requests.ts'
import { readErasure, readLimits, readMoves, readRepair, readReset } from './audit/windows.ts'
import {
  type ChainHead,
  type ChangeEntry,
  type CheckpointState,
  type Entry,
  emptyHead,
  type PrivatePart,
  type Sha256,
  type StoredEntry,
} from './entries.ts'

export type { Comparison } from './audit/cells.ts'
export { type Checkpoint, readCheckpoint, readRetained, withoutPerson } from './audit/checkpoint.ts'
export { type Finding, type FindingKind, type Tell, teller } from './audit/findings.ts'
export type { LiveAccount, LiveCells, LiveGrantCell, LiveRequest, LiveSubject } from './audit/live.ts'
export { auditSystem, type LiveKey, type LivePolicy, type SystemAudit } from './audit/system.ts'

export interface AuditOptions extends Prices {
  readonly sha256: Sha256
  /** Called for each disagreement as it is found. */
  readonly found: (finding: Finding) => void
  /** Called with each entry that can be read, in order, and with the person it names where that part is sound. */
  readonly read?: ((entry: Entry, person: PrivatePart | null) => void) | undefined
  /** A head kept elsewhere: the entry of that number must have that hash. */
  readonly head?: ChainHead | undefined
  /** Begin here: the first entry read is then the one after its head, and nothing before that is looked at. */
  readonly resume?: Checkpoint | undefined
  /** Compare on the way: the entries up to its head must add up to its state. */
  readonly verify?: Checkpoint | undefined
  /** Entries up to this one are to be let go: what they add up to is kept for `atEdge`. */
  readonly edge?: number | undefined
}

/** What a new checkpoint says. */
export interface Standing {
  readonly head: ChainHead
  readonly state: CheckpointState
}

/** One account under audit. First its entries, all of them in order; then its cells. */
export interface AccountAudit {
  entry(stored: StoredEntry): void
  /**
   * A request has a cell, read before the last entries were: `standing` keeps it, however old it is, since corrections of it may
   * still come.
   */
  lives(request: string): void
  /** The cell of any one request; for those that are open, `compare` is enough. Cells newer than the entries are passed over. */
  request(cell: LiveRequest): void
  /** After the last entry: holds the live cells against them, page by page. */
  compare(account: LiveAccount): Comparison
  /** The same with all of them at hand. */
  finish(cells: LiveCells): void
  /** What the entries read add up to, without closed requests past the horizon that have no cell any more. */
  standing(): Standing
  /**
   * What the entries up to the edge added up to, with those requests of theirs that were open then, have a cell, or are
   * spoken of later; undefined where the edge was not passed.
   */
  atEdge(): Standing | undefined
  /** The last entry read. */
  readonly head: ChainHead
  readonly entries: number
  readonly disagreements: number
}

export function auditAccount(account: string, options: AuditOptions): AccountAudit {
  let disagreements = 0
  const tell = teller(account, (finding) => {
    disagreements += 1
    options.found(finding)
  })
  const { resume, verify, edge, horizonMs = Number.POSITIVE_INFINITY } = options
  const journal = resume === undefined ? emptyJournal(emptyHead(account, options.sha256)) : journalAt(resume)
  let contradiction: string | undefined
  let passed: Standing | undefined
  const chain = openChain(journal, options, tell)
  const reader = openReader(journal, options, tell)

  function compare(account: LiveAccount): Comparison {
    reader.end()
    chain.end()
    checkUncharged(journal, tell)
    checkFunding(journal, tell)
    let cells: Comparison | undefined
    guarded(tell, "the account's cell", () => {
      cells = openComparison(journal, account, tell)
    })
    const within = (work: (cells: Comparison) => void): void =>
      guarded(tell, "the account's cell", () => {
        if (cells !== undefined) work(cells)
      })
    return {
      hold: (request) => within(({ hold }) => hold(request)),
      subject: (one) => within(({ subject }) => subject(one)),
      grant: (cell) => within(({ grant }) => grant(cell)),
      end(grants) {
        within(({ end }) => end(grants))
        // Someone may have been erased meanwhile: then the entries no longer say what the checkpoint said, and it is gone.
        if (contradiction !== undefined && account.checkpoint === verify?.seq)
          tell('checkpoint', contradiction, { seq: verify?.seq })
      },
    }
  }

  return {
    entry(stored) {
      guarded(tell, `entry ${stored.seq}`, () => {
        const link = chain.read(stored)
        if (link === undefined) return
        options.read?.(link.entry, link.person)
        reader.read(link)
      })
      if (stored.seq === edge) passed = { head: journal.head, state: stateOf(journal, () => true) }
      if (verify !== undefined && stored.seq === verify.head.seq)
        contradiction = contradictionOf(journal, verify)
    },
    lives(request) {
      const story = journal.requests.get(request)
      if (story !== undefined) story.live = true
    },
    request(cell) {
      guarded(tell, `the cell of request ${cell.id}`, () => compareRequest(journal, cell, tell))
    },
    compare,
    finish({ account, holds, subjects, grants }) {
      const cells = compare(account)
      for (const hold of holds) cells.hold(hold)
      for (const subject of subjects) cells.subject(subject)
      for (const grant of grants ?? []) cells.grant(grant)
      cells.end(grants !== undefined)
    },
    standing() {
      const old = journal.recordedAt - horizonMs
      const state = stateOf(journal, (_id, { hold, firstAt, live }) => hold !== null || firstAt > old || live)
      return { head: journal.head, state }
    },
    atEdge() {
      if (passed === undefined) return undefined
      const { head, state } = passed
      const requests = state.requests.filter(([id, , , , hold]) => {
        const now = journal.requests.get(id)
        return hold !== null || (now !== undefined && (now.live || now.last > head.seq))
      })
      return { head, state: { ...state, requests } }
    },
    get head() {
      return journal.head
    },
    get entries() {
      return chain.entries
    },
    get disagreements() {
      return disagreements
    },
  }
}

/** Requests that a checkpoint left out are not missed: which were past the horizon then is not known any more. */
function contradictionOf(journal: Journal, { head, state }: Checkpoint): string | undefined {
  if (journal.head.hash !== head.hash)
    return `the checkpoint is as of entry ${head.seq} with another hash than that entry has`
  const told = new Set(state.requests.map(([id]) => id))
  const right = stateOf(journal, (id, { hold }) => hold !== null || told.has(id))
  // Nor are those that are over and were left out of what the audit began with.
  const { first, requests: known } = journal
  const requests = state.requests.filter(([id, , last]) => last >= first || known.has(id))
  if (JSON.stringify(right) === JSON.stringify({ ...state, requests })) return undefined
  return `the checkpoint has another state than the entries up to ${head.seq} add up to`
}

/** Reads what entries say into the journal, in order. */
function openReader(journal: Journal, prices: Prices, tell: Tell) {
  let charge: OpenCharge | undefined
  const settle = (): void => {
    if (charge !== undefined) closeCharge(charge, tell)
    charge = undefined
  }

  function read({ entry, person, recordedAt }: Link): void {
    if (entry.kind !== 'balance' || entry.charge !== charge?.seq) settle()
    const story = entry.request === undefined ? undefined : readStory(entry, recordedAt)
    if (entry.kind === 'balance') readTransfer(journal, entry, charge, tell)
    else if (entry.kind === 'change') readChange(journal, entry, person, tell)
    else if (hasRequest(entry) && story !== undefined) {
      if (entry.kind === 'decision') {
        readDecision(journal, entry, story, tell)
        readLimits(journal, entry, person?.subject ?? null, recordedAt)
      } else if (entry.kind === 'usage') readUsage(journal, entry, person)
      else {
        readCharge(journal, entry, prices, tell)
        readMoves(journal, entry, journal.requests.get(entry.request)?.charge?.subject ?? null)
        charge = openCharge(entry)
      }
    }
    if (entry.kind === 'change' && entry.what === 'hold_closed' && story !== undefined && hasRequest(entry))
      readClosing(journal, entry, story, tell)
  }

  function readStory(entry: Entry, recordedAt: Millis) {
    if (!hasRequest(entry)) return undefined
    const story = storyOf(journal, entry, recordedAt, prices.horizonMs, tell)
    checkLink(story, entry, tell)
    return story
  }
  return { read, end: settle }
}

function hasRequest<E extends Entry>(entry: E): entry is E & { readonly request: string } {
  return entry.request !== undefined
}

function readChange(journal: Journal, entry: ChangeEntry, person: PrivatePart | null, tell: Tell): void {
  const { what, detail } = entry
  switch (what) {
    case 'account_created':
      journal.terms.plan = detail.plan as string
      journal.terms.zone = detail.zone as string
      journal.terms.status = 'active'
      return
    case 'plan':
    case 'status':
    case 'zone':
      journal.terms[what] = detail.to as string
      return
    case 'grant':
      return readGrant(journal, entry, tell)
    case 'revoke':
      return readRevocation(journal, entry, tell)
    case 'override':
      return readOverride(journal, entry, person)
    case 'erased':
      journal.checkpoint = null
      return readErasure(journal, entry)
    case 'checkpoint':
      return readCheckpointEntry(journal, entry, tell)
    case 'retained':
      journal.retained = entry.seq
      return
    case 'reset':
      return readReset(journal, entry, person?.subject ?? null, tell)
    case 'repair':
      return readRepair(journal)
  }
}

function readCheckpointEntry(journal: Journal, { seq, detail }: ChangeEntry, tell: Tell): void {
  journal.checkpoint = seq
  const { as_of } = detail as { as_of: number }
  if (as_of >= seq)
    tell('checkpoint', `the checkpoint is as of entry ${as_of}, which comes after it`, { seq })
}

function readOverride(journal: Journal, entry: ChangeEntry, person: PrivatePart | null): void {
  const { by, overrides } = entry.detail as {
    by?: string
    overrides: readonly (readonly [name: string, limit: Micros | null, untilAt: Millis | null])[]
  }
  const value = by === undefined ? undefined : person?.subject[by]
  if (by !== undefined && value === undefined) journal.erasedOverrides.add(by)
  const holder = by === undefined ? '' : value === undefined ? erasedHolder(by) : holderOf(by, value)
  const known = journal.overrides.get(holder) ?? new Map()
  for (const [name, limit, untilAt] of overrides) known.set(name, [limit, untilAt])
  journal.overrides.set(holder, known)
}
