/**
 * Checkpoints: what a journal added up to as of one entry, kept with a later entry of the same chain. That entry's body says
 * which entry, and with what hash; the state names people, so it is the private part, which goes when one of them is erased.
 *
 * Rows are sorted, so that equal journals have equal texts; a request that was settled takes 152 bytes
 * (measured on 20,000, with ids of 36 characters).
 */
import { emptyBooks } from '../books.ts'
import type {
  ChainHead,
  CheckpointState,
  GrantRow,
  RequestRow,
  Sha256,
  StoredEntry,
  WindowRow,
} from '../entries.ts'
import {
  emptyJournal,
  erasedHolder,
  type GrantTrace,
  holderOf,
  type Journal,
  type RequestTrace,
  type WindowTrace,
} from './journal.ts'
import { readDoubtful, readDoubtfulPrivate } from './reading.ts'

/** A checkpoint that can be relied on as far as its own entry goes; whether the chain holds that entry shows when it is read. */
export interface Checkpoint {
  /** Number of its entry. */
  readonly seq: number
  /** The last entry that its state covers. */
  readonly head: ChainHead
  readonly state: CheckpointState
}

/** Reads a checkpoint from its entry; undefined where it was erased or is damaged: reading the chain then tells of it. */
export const readCheckpoint = (stored: StoredEntry, sha256: Sha256): Checkpoint | undefined =>
  readState(stored, 'checkpoint', sha256)

/** The same of the entry that was written before older ones were let go. */
export const readRetained = (stored: StoredEntry, sha256: Sha256): Checkpoint | undefined =>
  readState(stored, 'retained', sha256)

function readState(
  stored: StoredEntry,
  what: 'checkpoint' | 'retained',
  sha256: Sha256,
): Checkpoint | undefined {
  const { private: part } = stored
  const told = readDoubtful(stored.body)
  if (typeof part !== 'string' || !('value' in told)) return undefined
  const entry = told.value
  if (entry.kind !== 'change' || entry.what !== what || entry.seq !== stored.seq) return undefined
  const { as_of = entry.seq, hash = '' } = entry.detail as { as_of?: number; hash?: string }
  if (as_of >= entry.seq || entry.private !== sha256(part)) return undefined
  const person = readDoubtfulPrivate(part)
  const state = 'value' in person ? person.value.state : undefined
  return state === undefined ? undefined : { seq: entry.seq, head: { seq: as_of, hash }, state }
}

/**
 * What the journal adds up to, after a whole transaction: no use waits for its charge. Requests that `keeps` does not name are
 * left out: of those no correction can come any more.
 */
export function stateOf(
  journal: Journal,
  keeps: (id: string, story: RequestTrace) => boolean,
): CheckpointState {
  const { books, terms } = journal
  return {
    recorded_at: journal.recordedAt,
    books: Object.entries(books).sort(byName),
    grants: [...journal.grants].sort(byName).map(([id, grant]) => grantRow(id, grant)),
    requests: [...journal.requests]
      .filter(([id, story]) => keeps(id, story))
      .sort(byName)
      .map(([id, story]) => requestRow(id, story)),
    windows: [...journal.windows]
      .sort(byName)
      .flatMap(([holder, own]) => [...own].sort(byName).map(([key, trace]) => windowRow(holder, key, trace))),
    terms: [terms.plan ?? null, terms.status ?? null, terms.zone ?? null],
    overrides: [...journal.overrides]
      .sort(byName)
      .flatMap(([holder, own]) =>
        [...own].sort(byName).map(([name, [limit, untilAt]]) => [holder, name, limit, untilAt] as const),
      ),
    erased_overrides: [...journal.erasedOverrides].sort(),
    repaired: journal.repaired,
    checkpoint: journal.checkpoint,
  }
}

/**
 * The same without a person, as the journal would stand had it been read after the erasure: what their windows counted is
 * that of someone unknown, and so is whom their charges were for. Sums of others stay as they are.
 */
export function withoutPerson(state: CheckpointState, dimension: string, value: string): CheckpointState {
  const holder = holderOf(dimension, value)
  const unknown = erasedHolder(dimension)
  const [own, others] = [
    state.windows.filter(([of]) => of === holder),
    state.windows.filter(([of]) => of !== holder),
  ]
  const windows = new Map(others.map((row) => [`${row[0]} ${row[1]}`, row]))
  for (const [, key, instances] of own) {
    const before = windows.get(`${unknown} ${key}`)?.[2] ?? []
    windows.set(`${unknown} ${key}`, [unknown, key, mergedInstances(before, instances), null])
  }
  const overridden = state.overrides.some(([of]) => of === holder)
  return {
    ...state,
    windows: [...windows.values()].sort(([a, b], [c, d]) => (a < c || (a === c && b < d) ? -1 : 1)),
    requests: state.requests.map((row) => {
      const charge = row[5]
      if (charge?.[2]?.[dimension] !== value) return row
      const [usage, seq, , ...rest] = charge
      return [row[0], row[1], row[2], row[3], row[4], [usage, seq, null, ...rest], row[6]]
    }),
    overrides: state.overrides.filter(([of]) => of !== holder),
    erased_overrides: overridden
      ? [...new Set([...state.erased_overrides, dimension])].sort()
      : state.erased_overrides,
  }
}

type InstanceRows = WindowRow[2]
function mergedInstances(one: InstanceRows, other: InstanceRows): InstanceRows {
  const sums = new Map(one.map((row) => [row[0], row]))
  for (const [startAt, plus, minus, loose] of other) {
    const known = sums.get(startAt) ?? [startAt, 0, 0, 0]
    sums.set(startAt, [startAt, known[1] + plus, known[2] + minus, known[3] + loose])
  }
  return [...sums.values()].sort(([a], [b]) => a - b)
}

/** By code units, as text compares: no two keys of a map are equal. */
const byName = ([one]: readonly [string, unknown], [other]: readonly [string, unknown]): number =>
  one < other ? -1 : 1

/** The journal as it stood at the checkpoint; what comes before its head is known only as far as it counts. */
export function journalAt({ head, state }: Checkpoint): Journal {
  const journal = emptyJournal(head)
  const [plan, status, zone] = state.terms
  journal.recordedAt = state.recorded_at
  journal.repaired = state.repaired
  journal.checkpoint = state.checkpoint
  Object.assign(journal.books, { ...emptyBooks(), ...Object.fromEntries(state.books) })
  Object.assign(journal.terms, {
    ...(plan === null ? {} : { plan }),
    ...(status === null ? {} : { status }),
    ...(zone === null ? {} : { zone }),
  })
  for (const row of state.grants) journal.grants.set(row[0], grantOf(row))
  for (const row of state.requests) {
    const story = storyOf(row)
    journal.requests.set(row[0], story)
    if (story.hold !== null) journal.open.add(row[0])
  }
  for (const [holder, key, instances, told] of state.windows) {
    const trace = {
      instances: instances.map(([startAt, plus, minus, loose]) => ({ startAt, plus, minus, loose })),
      told: told === null ? null : { seenAt: told[0], endAt: told[1] },
    }
    within(journal.windows, holder).set(key, trace)
  }
  for (const [holder, name, limit, untilAt] of state.overrides)
    within(journal.overrides, holder).set(name, [limit, untilAt])
  for (const dimension of state.erased_overrides) journal.erasedOverrides.add(dimension)
  return journal
}

function within<V>(sums: Map<string, Map<string, V>>, holder: string): Map<string, V> {
  const own = sums.get(holder) ?? new Map<string, V>()
  sums.set(holder, own)
  return own
}

function grantRow(id: string, grant: GrantTrace): GrantRow {
  const { seq, kind, amount, priority, startsAt, expiresAt, features, revokedSeq } = grant
  const { funded, refunded, charged, expired, revoked, repaid, repaidAtOnce, rolled, held } = grant
  const sums = [funded, refunded, charged, expired, revoked, repaid, repaidAtOnce, rolled, held] as const
  return [id, seq, kind, amount, priority, startsAt, expiresAt, features, sums, revokedSeq]
}

function grantOf(row: GrantRow): GrantTrace {
  const [, seq, kind, amount, priority, startsAt, expiresAt, features, sums, revokedSeq] = row
  const [funded, refunded, charged, expired, revoked, repaid, repaidAtOnce, rolled, held] = sums
  return {
    ...{ seq, kind, amount, priority, startsAt, expiresAt, features },
    ...{ funded, refunded, charged, expired, revoked, repaid, repaidAtOnce, rolled, held },
    revokedSeq,
  }
}

function requestRow(id: string, { firstAt, last, decision, hold, charge, closed }: RequestTrace): RequestRow {
  return [
    id,
    firstAt,
    last,
    decision,
    hold === null ? null : [hold.granted, hold.from, hold.expiresAt],
    charge === null
      ? null
      : [
          charge.usage,
          charge.seq,
          charge.subject,
          charge.standing,
          charge.refunded,
          Object.entries(charge.cover),
        ],
    closed,
  ]
}

function storyOf([, firstAt, last, decision, held, charged, closed]: RequestRow): RequestTrace {
  const hold = held === null ? null : { granted: held[0], from: held[1], expiresAt: held[2] }
  if (charged === null) return { firstAt, last, decision, hold, charge: null, closed, live: false }
  const [usage, seq, subject, standing, refunded, cover] = charged
  const charge = { usage, seq, subject, standing, refunded, cover: Object.fromEntries(cover) }
  return { firstAt, last, decision, hold, charge, closed, live: false }
}

function windowRow(holder: string, key: string, { instances, told }: WindowTrace): WindowRow {
  return [
    holder,
    key,
    instances.map(({ startAt, plus, minus, loose }) => [startAt, plus, minus, loose] as const),
    told === null ? null : [told.seenAt, told.endAt],
  ]
}
