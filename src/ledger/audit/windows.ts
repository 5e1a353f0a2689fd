/** Windows: what allowances, budgets, overage and the absorbed have counted, worked out from the charges. */
import type { Micros, Millis } from '../../units.ts'
import type { ChangeEntry, ChargeEntry, DecisionEntry } from '../entries.ts'
import type { Subject } from '../grants.ts'
import { cu, type Tell } from './findings.ts'
import {
  ACCOUNT_HOLDER,
  erasedHolder,
  holderOf,
  type InstanceTrace,
  type Journal,
  type WindowTrace,
} from './journal.ts'

/** Holds live through several instances of a window; of each window the latest this many are remembered. */
const INSTANCES = 6

/**
 * How a charge moves windows: none by more than what its source covers, or a budget's by more than the cost, and together by
 * at least what the source covers. Not each by just that: a new policy may have renamed a window between hold and excess.
 */
export function checkMoves(entry: ChargeEntry, tell: Tell): void {
  const { seq, request, cost } = entry
  const covered = new Map<string, Micros>()
  for (const [source, amount] of entry.cover) {
    const name = windowedSource(source)
    if (name !== undefined) covered.set(name, (covered.get(name) ?? 0) + amount)
  }
  const moved = new Map<string, Micros>()
  for (const [key, , , amount] of entry.windows) moved.set(key, (moved.get(key) ?? 0) + amount)
  const bySource = new Map<string, Micros>()
  for (const [key, amount] of moved) {
    const name = key.includes('/') ? key.slice(0, key.indexOf('/')) : key
    const source = covered.get(name)
    if (source !== undefined) bySource.set(name, (bySource.get(name) ?? 0) + amount)
    const most = source ?? (key.includes('/') || isSource(key) ? 0 : cost)
    if (Math.abs(amount) > Math.abs(most) || amount < 0 !== most < 0)
      tell(
        'window',
        `window ${key} moves by ${cu(amount)} for a charge that moves it by ${cu(most)} at most`,
        {
          seq,
          request,
          amount: amount - most,
        },
      )
  }
  for (const [name, amount] of covered) {
    // A refund to someone who has been erased finds no window to give back to.
    if (amount > 0 && (bySource.get(name) ?? 0) < amount)
      tell('window', `${name} covers ${cu(amount)}, and its windows move by ${cu(bySource.get(name) ?? 0)}`, {
        seq,
        request,
        amount,
      })
  }
}

const isSource = (key: string): boolean => key === 'overage' || key === 'absorb'

function windowedSource(source: string): string | undefined {
  if (source.startsWith('allowance:')) return source.slice('allowance:'.length)
  if (source === 'overage') return 'overage'
  return source === 'absorbed' ? 'absorb' : undefined
}

/** Counts a charge's moves; `subject` is null where the person has been erased. */
export function readMoves(journal: Journal, entry: ChargeEntry, subject: Subject | null): void {
  for (const [key, by, startAt, amount] of entry.windows) {
    // A start of 0 is an instance that had ended: nothing counts it any more.
    if (startAt === 0) continue
    const value = by === null ? undefined : subject?.[by]
    const holder = by === null ? ACCOUNT_HOLDER : value === undefined ? erasedHolder(by) : holderOf(by, value)
    const instance = instanceAt(traceOf(journal, holder, key), startAt)
    if (amount > 0) instance.plus += amount
    else instance.minus -= amount
  }
}

function traceOf(journal: Journal, holder: string, key: string): WindowTrace {
  let own = journal.windows.get(holder)
  if (own === undefined) {
    own = new Map()
    journal.windows.set(holder, own)
  }
  let trace = own.get(key)
  if (trace === undefined) {
    trace = { instances: [], told: null }
    own.set(key, trace)
  }
  return trace
}

function instanceAt(trace: WindowTrace, startAt: Millis): InstanceTrace {
  const known = trace.instances.find((instance) => instance.startAt === startAt)
  if (known !== undefined) return known
  const fresh = { startAt, plus: 0, minus: 0, loose: 0 }
  trace.instances.push(fresh)
  if (trace.instances.length > INSTANCES) trace.instances.shift()
  return fresh
}

/** A decision tells when the windows it looked at end: until then they must stand in the cells. */
export function readLimits(
  journal: Journal,
  entry: DecisionEntry,
  subject: Subject | null,
  seenAt: Millis,
): void {
  for (const [kind, name, by, , , used, held, , endAt] of entry.limits) {
    if (kind !== 'budget' && kind !== 'allowance' && kind !== 'overage') continue
    // A window that nobody has used yet is only how it would open.
    if (endAt === null || used + held === 0) continue
    const value = by === null ? undefined : subject?.[by]
    if (by !== null && value === undefined) continue
    const holder = by === null ? ACCOUNT_HOLDER : holderOf(by, value as string)
    traceOf(journal, holder, name).told = { seenAt, endAt }
  }
}

/** A plan dropped the name of a window that had not ended: it stands no more, and may begin anew. */
export function readReset(journal: Journal, entry: ChangeEntry, subject: Subject | null, tell: Tell): void {
  const { window, by, starts_at, used } = entry.detail as {
    window: string
    by?: string
    starts_at: number
    used: number
  }
  const value = by === undefined ? undefined : subject?.[by]
  const holder =
    by === undefined ? ACCOUNT_HOLDER : value === undefined ? erasedHolder(by) : holderOf(by, value)
  const trace = traceOf(journal, holder, window)
  trace.told = null
  const instance = instanceAt(trace, starts_at)
  if (value === undefined && by !== undefined) {
    instance.minus += used
    return
  }
  const sum = instance.plus - instance.minus
  const erased = by !== undefined && journal.windows.get(erasedHolder(by))?.has(window) === true
  if (instance.loose === 0 && sum !== used && !erased)
    tell('window', `window ${window} is reset at ${cu(used)} used, and charges add up to ${cu(sum)}`, {
      seq: entry.seq,
      amount: used - sum,
    })
  trace.instances.splice(trace.instances.indexOf(instance), 1)
}

/** A subject's cell went with the person: what was told of ends in its dimension holds no more. */
export function readErasure(journal: Journal, entry: ChangeEntry): void {
  const dimension = entry.detail.dimension as string
  for (const [holder, own] of journal.windows)
    if (holder.startsWith(`${dimension}=`)) for (const trace of own.values()) trace.told = null
}

/** The clock was set back: windows may have begun again, so what they had counted is only a bound. */
export function readRepair(journal: Journal): void {
  journal.repaired = true
  for (const own of journal.windows.values()) {
    for (const trace of own.values()) {
      trace.told = null
      for (const instance of trace.instances) {
        instance.loose += Math.max(0, instance.plus - instance.minus)
        instance.plus = 0
        instance.minus = 0
      }
    }
  }
}

/** The least and the most that an instance can have counted; equal where everything is known. */
export function usedRange(
  journal: Journal,
  by: string | null,
  holder: string,
  key: string,
  startAt: Millis,
): readonly [least: Micros, most: Micros] {
  const find = (of: string): InstanceTrace | undefined =>
    journal.windows
      .get(of)
      ?.get(key)
      ?.instances.find((instance) => instance.startAt === startAt)
  const own = find(holder)
  const erased = by === null ? undefined : find(erasedHolder(by))
  const known = (own?.plus ?? 0) - (own?.minus ?? 0)
  return [
    Math.max(0, known - (erased?.minus ?? 0)),
    Math.max(0, known + (own?.loose ?? 0) + (erased?.plus ?? 0) + (erased?.loose ?? 0)),
  ]
}
