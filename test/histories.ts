/**
 * What the tests of the audit share: an engine on the memory store plays a history, and the account's entries and cells are
 * copied out, so that a test can damage them and audit the copy.
 */
import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { type AuditReport, createEngine, type Disagreement } from '../src/engine.ts'
import type {
  AccountCell,
  Cell,
  GrantCell,
  KeyCell,
  PolicyCell,
  RequestCell,
  SubjectCell,
  SystemCell,
} from '../src/kernel/cells.ts'
import {
  auditAccount,
  auditSystem,
  type Checkpoint,
  type Finding,
  readCheckpoint,
} from '../src/ledger/audit.ts'
import { chainHash, emptyHead, readEntry, type StoredEntry } from '../src/ledger/entries.ts'
import { compilePolicy } from '../src/policy/compile.ts'
import { memoryStore } from '../src/store/memory.ts'
import type { Millis } from '../src/units.ts'
import type { DecisionAnswer } from '../src/wire.ts'

export const MINUTE = 60_000
export const HOUR = 60 * MINUTE
export const DAY = 24 * HOUR
/** A Thursday noon in the middle of a month. */
export const START: Millis = Date.UTC(2026, 0, 15, 12)
export const CU = 1_000_000

export const sha256 = (text: string): string => createHash('sha256').update(text).digest('hex')

/** An account as it lies in the store; tests change copies of it. */
export interface Kept {
  readonly id: string
  entries: StoredEntry[]
  readonly cells: Map<string, Cell>
  readonly policies: ReadonlyMap<number, string>
}

export async function history(policy: string, startAt: Millis = START) {
  const clock = { now: startAt }
  const store = memoryStore({ now: () => clock.now })
  const engine = await createEngine({ store, policy, sweeps: false })
  const on = { account: 'acme' }
  return {
    engine,
    store,
    clock,
    wait: (ms: Millis) => {
      clock.now += ms
    },
    create: (plan: string) => engine.createAccount({ id: 'acme', plan }),
    grant: (id: string, amount: string, more: object = {}) =>
      engine.grant('acme', { id, kind: 'purchased', amount, ...more }),
    reserve: (id: string, cost: string, more: object = {}) =>
      granted(
        engine.reserve({
          ...on,
          request_id: id,
          subject: { user: 'u1', team: 't1' },
          feature: 'job',
          cost,
          ...more,
        }),
      ),
    task: (id: string, units: string, more: object = {}) =>
      granted(
        engine.reserve({
          ...on,
          request_id: id,
          subject: { user: 'u1', team: 't1' },
          feature: 'task',
          estimate: { units },
          ...more,
        }),
      ),
    extend: (id: string, step: number, more: object) =>
      granted(engine.extend({ ...on, request_id: id, step, ...more })),
    settle: (id: string, cost: string, more: object = {}) =>
      engine.settle({ ...on, request_id: id, cost, ...more }),
    used: (id: string, units: string, more: object = {}) =>
      engine.settle({ ...on, request_id: id, usage: { units }, ...more }),
    release: (id: string) => engine.release({ ...on, request_id: id }),
    record: (id: string, cost: string, more: object = {}) =>
      engine.record({
        ...on,
        request_id: id,
        subject: { user: 'u1', team: 't1' },
        feature: 'job',
        cost,
        ...more,
      }),
    refund: (id: string, refundId: string, amount?: string) =>
      engine.refund('acme', id, {
        refund_id: refundId,
        reason: 'a mistake',
        ...(amount === undefined ? {} : { amount }),
      }),
    /** Brings the account to now and writes it. */
    touch: async () => {
      await engine.record({ ...on, request_id: `touch-${clock.now}`, subject: {}, feature: 'job', cost: '0' })
    },
    /** Audits the account, which must be sound, and writes a checkpoint of it. */
    checkpoint: async (fromCheckpoints = false): Promise<AuditReport> => {
      const found: Disagreement[] = []
      const report = await engine.audit({
        accounts: ['acme'],
        fromCheckpoints,
        writeCheckpoints: true,
        onDisagreement: (one) => found.push(one),
      })
      if (found.length > 0) throw new Error(`a checkpoint of unsound books: ${JSON.stringify(found)}`)
      return report
    },
    keep: async (id = 'acme'): Promise<Kept> => {
      const cells = await store.cells(id, '', { limit: 1_000_000 })
      const policies = await store.cells('@system', 'policy:', { limit: 1_000 })
      return structuredClone({
        id,
        entries: [...(await store.entries(id, { limit: 1_000_000 }))],
        cells: new Map(cells.map(({ key, cell }) => [key as string, cell])),
        policies: new Map(
          policies.map(({ cell }) => [
            (cell as { version: number }).version,
            (cell as { text: string }).text,
          ]),
        ),
      })
    },
  }
}

/** A history that was refused what it means to do proves nothing. */
async function granted(answer: Promise<DecisionAnswer>): Promise<DecisionAnswer> {
  const { outcome, reason } = await answer
  assert.ok(outcome === 'allow' || outcome === 'partial', reason)
  return answer
}

const cellsOf = <C>(kept: Kept, prefix: string): C[] =>
  [...kept.cells].filter(([key]) => key.startsWith(prefix)).map(([, cell]) => cell as C)
/** Tests of damage change what Sluice itself only replaces. */
export type Damageable<T> = { -readonly [name in keyof T]: Damageable<T[name]> }
export const accountOf = (kept: Kept): Damageable<AccountCell> =>
  kept.cells.get('account') as Damageable<AccountCell>
export const systemOf = (kept: Kept): SystemCell => kept.cells.get('account') as SystemCell
export const requestsOf = (kept: Kept): RequestCell[] => cellsOf(kept, 'request:')

export interface Looks {
  readonly head?: { readonly seq: number; readonly hash: string }
  readonly horizonMs?: Millis
  /** From this checkpoint on, or from the newest; there must be one that can be read. */
  readonly resume?: boolean | Checkpoint
}

export function checkpointOf(kept: Kept): Checkpoint | undefined {
  const stored = kept.entries.find(({ seq }) => seq === accountOf(kept).checkpoint)
  return stored === undefined ? undefined : readCheckpoint(stored, sha256)
}

/** Audits a copy the way the engine does: entries in order, every request cell, then the live cells. */
export function auditOf(kept: Kept, { head, horizonMs = 35 * DAY, resume = false }: Looks = {}): Finding[] {
  const checkpoint = typeof resume === 'object' ? resume : checkpointOf(kept)
  if (resume === true) assert.ok(checkpoint !== undefined, 'there is no checkpoint that can be read')
  const findings: Finding[] = []
  const policies = new Map(
    [...kept.policies].map(([version, text]) => [version, compilePolicy(version, text)]),
  )
  const audit = auditAccount(kept.id, {
    sha256,
    head,
    horizonMs,
    rateCard: (version, feature) => policies.get(version)?.features.get(feature)?.card,
    found: (finding) => findings.push(finding),
    ...(resume ? { resume: checkpoint } : { verify: checkpoint }),
  })
  const from = resume ? audit.head.seq : 0
  for (const stored of kept.entries)
    if (stored.seq > from || !Number.isInteger(stored.seq)) audit.entry(stored)
  for (const request of requestsOf(kept)) audit.request(request)
  audit.finish({
    account: accountOf(kept),
    subjects: cellsOf<SubjectCell>(kept, 'subject:'),
    holds: requestsOf(kept).filter(({ state }) => state === 'open'),
    grants: cellsOf<GrantCell>(kept, 'grant:'),
  })
  return findings
}

/** Audits a copy of `@system`. */
export function auditSystemOf(kept: Kept): Finding[] {
  const findings: Finding[] = []
  const audit = auditSystem({ sha256, found: (finding) => findings.push(finding) })
  for (const stored of kept.entries) audit.entry(stored)
  for (const policy of cellsOf<PolicyCell>(kept, 'policy:')) audit.policy(policy)
  for (const key of cellsOf<KeyCell>(kept, 'key:')) audit.key(key)
  audit.finish(systemOf(kept))
  return findings
}

/** Hashes the whole chain anew, as someone would who rewrites the journal and knows how; the cell's head follows. */
export function rehash(kept: Kept): void {
  let head = emptyHead(kept.id, sha256)
  kept.entries = kept.entries.map((stored) => {
    head = { seq: stored.seq, hash: chainHash(head.hash, stored.body, sha256) }
    return { ...stored, hash: head.hash }
  })
  accountOf(kept).head = head
}

/** Changes the text of the first entry that matches. Answers its number. */
export function rewrite(
  kept: Kept,
  matches: (body: Record<string, unknown>) => boolean,
  change: (body: Record<string, unknown>) => void,
): number {
  const at = kept.entries.findIndex((stored) => matches({ ...readEntry(stored) }))
  const stored = kept.entries[at]
  if (stored === undefined) throw new Error('no such entry')
  const body = JSON.parse(stored.body) as Record<string, unknown>
  change(body)
  kept.entries[at] = { ...stored, body: JSON.stringify(body) }
  return stored.seq
}
