/** The pseudo-account `@system`: policy versions and keys, with a chain of their own. */
import { type ChangeName, chainHash, ENTRY_FORMAT, emptyHead, type StoredEntry } from '../ledger/entries.ts'
import type { Subject } from '../ledger/grants.ts'
import type { Millis } from '../units.ts'
import {
  CELL_FORMAT,
  type Cell,
  type Cells,
  type Key,
  type KeyCell,
  type PolicyCell,
  SYSTEM,
  type SystemCell,
} from './cells.ts'
import { type Context, catchSignals, type StepEnv, type StepOutcome } from './draft.ts'
import { fail, NeedSignal, type Reply } from './faults.ts'

type Change = {
  readonly what: ChangeName
  readonly detail: Readonly<Record<string, unknown>>
  readonly cell?: readonly [Key, Cell]
  /** Whom it names; erasable, as everywhere. */
  readonly subject?: Subject | undefined
}

function cellAt<C>(cells: Cells, key: Key): C | null {
  const cell = cells.get(key)
  if (cell === undefined) throw new NeedSignal([key])
  return cell as C | null
}

function systemCell(cells: Cells, context: Context): SystemCell {
  return (
    cellAt<SystemCell>(cells, 'account') ?? {
      v: CELL_FORMAT,
      id: SYSTEM,
      lastAt: 0,
      head: emptyHead(SYSTEM, context.sha256),
      activePolicy: 0,
      dueAt: null,
    }
  )
}

function commit<T>(
  system: SystemCell,
  env: StepEnv,
  context: Context,
  change: Change,
  result: (seq: number) => T,
): StepOutcome<Reply<T>> {
  const seq = system.head.seq + 1
  const at = Math.max(env.now, system.lastAt)
  const person =
    change.subject === undefined ? null : JSON.stringify({ salt: context.salt, subject: change.subject })
  const body = JSON.stringify({
    v: ENTRY_FORMAT,
    seq,
    kind: 'change',
    at,
    actor: context.actor,
    private: person === null ? undefined : context.sha256(person),
    what: change.what,
    detail: change.detail,
  })
  const hash = chainHash(system.head.hash, body, context.sha256)
  const entry: StoredEntry = { seq, kind: 'change', body, private: person, hash }
  const account: SystemCell = { ...system, lastAt: at, head: { seq, hash } }
  return {
    result: { ok: result(seq) },
    writes: [
      { key: 'account', cell: account },
      ...(change.cell === undefined ? [] : [{ key: change.cell[0], cell: change.cell[1] }]),
    ],
    entries: [entry],
  }
}

/** Publishes a text that has been compiled as the next version. The active text again changes nothing. */
export function publishPolicy(
  cells: Cells,
  env: StepEnv,
  context: Context,
  text: string,
  ifVersion: number | undefined,
): StepOutcome<Reply<PolicyCell>> {
  return catchSignals(() => {
    const system = systemCell(cells, context)
    const active = system.activePolicy
    const current = active === 0 ? null : cellAt<PolicyCell>(cells, `policy:${active}`)
    if (current?.text === text) return { result: { ok: current }, writes: [], entries: [] }
    if (ifVersion !== undefined && ifVersion !== active) {
      fail('precondition_failed', `version ${active} is in force`, {
        path: '/if-match',
        remedy: 'read the policy again and repeat the change on what it says',
      })
    }
    const version = active + 1
    const at = Math.max(env.now, system.lastAt)
    const cell: PolicyCell = {
      v: CELL_FORMAT,
      version,
      text,
      at,
      actor: context.actor,
      seq: system.head.seq + 1,
    }
    const detail = { version, text }
    return commit(
      { ...system, activePolicy: version },
      env,
      context,
      { what: 'policy', detail, cell: [`policy:${version}`, cell] },
      () => cell,
    )
  })
}

/** Records that entries before an instant may be let go; again, or for an earlier instant, it changes nothing. */
export function recordRetention(
  cells: Cells,
  env: StepEnv,
  context: Context,
  before: Millis,
): StepOutcome<Reply<Millis>> {
  return catchSignals(() => {
    const system = systemCell(cells, context)
    const known = system.retainedBefore
    if (known !== undefined && known >= before) return { result: { ok: known }, writes: [], entries: [] }
    const change = { what: 'retained' as const, detail: { before } }
    return commit({ ...system, retainedBefore: before }, env, context, change, () => before)
  })
}

/** Makes a key; a repeat of its id is a conflict, since its secret is told only once. */
export function createKey(
  cells: Cells,
  env: StepEnv,
  context: Context,
  made: Omit<KeyCell, 'v' | 'createdAt' | 'revokedAt'>,
): StepOutcome<Reply<KeyCell>> {
  return catchSignals(() => {
    const system = systemCell(cells, context)
    const key: Key = `key:${made.id}`
    if (cellAt<KeyCell>(cells, key) !== null) {
      fail('conflict', `key ${made.id} exists already`, {
        path: '/id',
        remedy: 'use another id: a secret is told only once',
      })
    }
    const createdAt = Math.max(env.now, system.lastAt)
    if (made.expiresAt !== null && made.expiresAt <= createdAt)
      fail('invalid', 'the key would end before it can be used', {
        path: '/expires_at',
        remedy: 'send an instant after now',
      })
    const cell: KeyCell = { ...made, v: CELL_FORMAT, createdAt, revokedAt: null }
    const detail = { id: made.id, role: made.role, account: made.account, expires_at: made.expiresAt }
    const change: Change = { what: 'key_created', detail, cell: [key, cell], subject: made.subject }
    return commit(system, env, context, change, () => cell)
  })
}

export function revokeKey(
  cells: Cells,
  env: StepEnv,
  context: Context,
  id: string,
): StepOutcome<Reply<KeyCell>> {
  return catchSignals(() => {
    const system = systemCell(cells, context)
    const key: Key = `key:${id}`
    const known = cellAt<KeyCell>(cells, key)
    if (known === null)
      fail('key_unknown', `there is no key ${id}`, {
        path: '/id',
        remedy: 'list the keys: their ids are there',
      })
    if (known.revokedAt !== null) return { result: { ok: known }, writes: [], entries: [] }
    const at: Millis = Math.max(env.now, system.lastAt)
    const cell: KeyCell = { ...known, revokedAt: at }
    return commit(
      system,
      env,
      context,
      { what: 'key_revoked', detail: { id }, cell: [key, cell] },
      () => cell,
    )
  })
}
