/** The audit of `@system`: the chain of policy versions and keys, and the cells they live in. */
import type { Millis } from '../../units.ts'
import {
  type ChainHead,
  type ChangeEntry,
  emptyHead,
  type PrivatePart,
  type StoredEntry,
} from '../entries.ts'
import type { Subject } from '../grants.ts'
import { type ChainOptions, openChain } from './chain.ts'
import { type Finding, guarded, instant, type Tell, teller } from './findings.ts'
import { emptyJournal } from './journal.ts'

export interface LivePolicy {
  readonly version: number
  readonly text: string
}
export interface LiveKey {
  readonly id: string
  readonly role: string
  readonly account?: string
  readonly subject?: Subject
  readonly expiresAt: Millis | null
  readonly revokedAt: Millis | null
}
export interface LiveSystem {
  readonly head: ChainHead
  readonly activePolicy: number
  readonly retainedBefore?: Millis
}
export interface SystemAuditOptions extends ChainOptions {
  readonly found: (finding: Finding) => void
}
/** First the entries in order, then the cells of every policy version and key, then `finish`. */
export interface SystemAudit {
  entry(stored: StoredEntry): void
  /** Versions and keys that came after the last entry read are passed over. */
  policy(cell: LivePolicy): void
  key(cell: LiveKey): void
  finish(cell: LiveSystem): void
  readonly head: ChainHead
  readonly entries: number
}

interface KeyTrace {
  readonly seq: number
  readonly role: unknown
  readonly account: unknown
  readonly expiresAt: unknown
  /** Null where the entry's private part was erased: then it cannot be compared. */
  readonly subject: Subject | undefined | null
  revoked: boolean
}

const SYSTEM = '@system'

/** What a key may do, and what a policy says, must be what an entry once said: both give access to everything else. */
export function auditSystem(options: SystemAuditOptions): SystemAudit {
  const tell = teller(SYSTEM, options.found)
  const journal = emptyJournal(emptyHead(SYSTEM, options.sha256))
  const chain = openChain(journal, options, tell)
  const policies = new Map<number, { readonly seq: number; readonly digest: string }>()
  const keys = new Map<string, KeyTrace>()
  const seen = new Set<number | string>()
  let retainedBefore: Millis | undefined

  function read(entry: ChangeEntry, person: PrivatePart | null): void {
    const { seq, what, detail } = entry
    if (what === 'policy') {
      const version = detail.version as number
      if (version !== policies.size + 1)
        tell('missing', `policy version ${version} follows on ${policies.size} versions before it`, { seq })
      policies.set(version, { seq, digest: options.sha256(detail.text as string) })
    }
    const id = String(detail.id)
    if (what === 'retained') retainedBefore = detail.before as Millis
    if (what === 'key_created')
      keys.set(id, {
        seq,
        role: detail.role,
        account: detail.account,
        expiresAt: detail.expires_at,
        subject: entry.private === undefined ? undefined : (person?.subject ?? null),
        revoked: false,
      })
    if (what === 'key_revoked') {
      const key = keys.get(id)
      if (key === undefined) tell('missing', `key ${id} is revoked and was never made`, { seq })
      else key.revoked = true
    }
  }

  return {
    entry(stored) {
      const link = chain.read(stored)
      if (link?.entry.kind === 'change') read(link.entry, link.person)
    },
    policy(cell) {
      guarded(tell, `the cell of policy version ${cell.version}`, () => {
        seen.add(cell.version)
        const trace = policies.get(cell.version)
        if (trace === undefined) {
          if (cell.version <= policies.size)
            tell('missing', `no entry published policy version ${cell.version}`)
          return
        }
        if (options.sha256(cell.text) !== trace.digest)
          tell(
            'account',
            `the text of policy version ${cell.version} is not the one that was published`,
            trace,
          )
      })
    },
    key(cell) {
      guarded(tell, `the cell of key ${cell.id}`, () => {
        seen.add(cell.id)
        compareKey(cell, keys.get(cell.id), tell)
      })
    },
    finish({ head, activePolicy, retainedBefore: says }) {
      chain.end()
      const last = journal.head
      if (head.seq > last.seq)
        tell('missing', `entries ${last.seq + 1} to ${head.seq} are missing`, { seq: head.seq })
      else if (head.seq < last.seq || head.hash !== last.hash)
        tell('chain', `the journal ends with entry ${last.seq}, and the cell knows another end`, {
          seq: last.seq,
        })
      if (activePolicy !== policies.size)
        tell('account', `policy version ${activePolicy} is in force, and ${policies.size} was published last`)
      if (says !== retainedBefore)
        tell(
          'account',
          `entries before ${says === undefined ? 'none' : instant(says)} were let go by the cell, and before ${retainedBefore === undefined ? 'none' : instant(retainedBefore)} by the journal`,
        )
      for (const [version, { seq }] of policies)
        if (!seen.has(version)) tell('missing', `policy version ${version} is missing`, { seq })
      for (const [id, { seq }] of keys)
        if (!seen.has(id)) tell('missing', `the cell of key ${id} is missing`, { seq })
    },
    get head() {
      return journal.head
    },
    get entries() {
      return chain.entries
    },
  }
}

function compareKey(cell: LiveKey, trace: KeyTrace | undefined, tell: Tell): void {
  if (trace === undefined)
    return tell('account', `key ${cell.id} with role ${cell.role} was made by no entry`)
  const { seq } = trace
  const differ = (what: string, says: unknown, right: unknown): void =>
    tell(
      'account',
      `${what} of key ${cell.id} is ${says ?? 'none'} in its cell, and it was made with ${right ?? 'none'}`,
      {
        seq,
      },
    )
  if (cell.role !== trace.role) differ('the role', cell.role, trace.role)
  if (cell.account !== trace.account) differ('the account', cell.account, trace.account)
  if (cell.expiresAt !== trace.expiresAt) differ('the end', cell.expiresAt, trace.expiresAt)
  if (trace.subject !== null && subjectText(cell.subject) !== subjectText(trace.subject))
    differ('the subject', subjectText(cell.subject), subjectText(trace.subject))
  if ((cell.revokedAt !== null) !== trace.revoked)
    tell(
      'account',
      `key ${cell.id} is ${trace.revoked ? 'revoked by its entries and valid' : 'revoked by no entry, and revoked'} in its cell`,
      {
        seq,
      },
    )
}

function subjectText(subject: Subject | undefined): string | undefined {
  if (subject === undefined) return undefined
  const parts = Object.keys(subject).map((dimension) => `${dimension}=${subject[dimension]}`)
  return parts.sort().join(', ')
}
