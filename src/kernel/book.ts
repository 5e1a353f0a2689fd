/** The three records of a charge, in their order: usage, charge, balances. And the closing of a hold that charged nothing. */
import type { UsageBody, WindowMove } from '../ledger/entries.ts'
import type { Quantities } from '../ledger/price.ts'
import { add, type Micros, type Millis } from '../units.ts'
import type { RequestCell } from './cells.ts'
import { type Spending, splitOf } from './charge.ts'
import type { Draft, Move } from './draft.ts'
import { joinParts } from './hold.ts'

export interface Bill {
  readonly op: UsageBody['op']
  readonly cost: Micros
  readonly quantities: Quantities
  readonly line: number | undefined
  /** The caller told the cost itself. */
  readonly stated: boolean
  readonly unpriced: readonly string[]
  /** When it took effect; for reports. */
  readonly at?: Millis | undefined
  readonly endpoint?: string | undefined
  readonly startedAt?: Millis | undefined
  readonly durationMs?: Millis | undefined
  readonly estimated?: boolean
  /** The charge this one corrects: then `cost` is the whole, and `spending` the difference. */
  readonly corrects?: { readonly seq: number; readonly difference: Micros } | undefined
}

/** Writes usage, charge and balance entries, and notes the charge in the request's cell. */
export function bookCharge(draft: Draft, request: RequestCell, spending: Spending, bill: Bill): void {
  const { at } = bill
  const usageSeq = draft.append(
    'usage',
    {
      op: bill.op,
      feature: request.feature,
      endpoint: bill.endpoint,
      quantities: bill.quantities,
      started_at: bill.startedAt,
      duration_ms: bill.durationMs,
      estimated: bill.estimated === true ? true : undefined,
    },
    {
      at,
      request: request.id,
      previous: request.seqs.last,
      person: { subject: request.subject, attributes: request.attributes },
    },
  )
  const seq = draft.append(
    'charge',
    {
      usage: usageSeq,
      policy: request.policyVersion,
      line: bill.line,
      stated: bill.stated ? true : undefined,
      unpriced: bill.unpriced.length === 0 ? undefined : bill.unpriced,
      cost: bill.corrects?.difference ?? bill.cost,
      cover: splitOf(spending.parts),
      windows: mergeWindows(spending.windows),
      returned: spending.returned === 0 ? undefined : spending.returned,
      corrects: bill.corrects?.seq,
      total: bill.corrects === undefined ? undefined : bill.cost,
    },
    { at, request: request.id, previous: usageSeq },
  )
  draft.book(mergeMoves(spending.moves), { at, request: request.id, previous: seq, charge: seq })
  request.seqs.last = seq
  // A correction upwards adds to what stands; one downwards has already been taken from it.
  const before = bill.corrects === undefined ? undefined : request.charge
  const added = spending.parts.filter((part) => part.amount > 0)
  request.charge = {
    usageSeq,
    seq,
    cost: before === undefined ? bill.cost : before.cost + Math.max(0, bill.corrects?.difference ?? 0),
    refunded: before?.refunded ?? 0,
    parts: joinParts(before === undefined ? added : [...before.parts, ...added]),
    guards: before === undefined ? spending.guards : [...before.guards, ...spending.guards],
  }
}

/** A hold that closed without a charge: an entry says so, and how much went back. */
export function bookClosing(
  draft: Draft,
  request: RequestCell,
  spending: Spending,
  cause: 'released' | 'expired',
  at: Millis,
  reason?: string,
): void {
  const links = { at, request: request.id, previous: request.seqs.last }
  const seq = draft.change(
    'hold_closed',
    { cause, returned: spending.returned, ...(reason === undefined ? {} : { reason }) },
    links,
  )
  draft.book(spending.moves, { at, request: request.id, previous: seq })
  request.seqs.last = seq
}

/** One transfer for what moved between the same two within one charge, in the order first moved. */
function mergeMoves(moves: readonly Move[]): Move[] {
  const merged: Move[] = []
  for (const move of moves) {
    const same = merged.findIndex(
      (other) => other.from === move.from && other.to === move.to && other.reason === move.reason,
    )
    const other = merged[same]
    if (other === undefined) merged.push(move)
    else merged[same] = { ...other, amount: add(other.amount, move.amount) }
  }
  return merged
}

/** One movement for each instance of a window. */
function mergeWindows(windows: readonly WindowMove[]): WindowMove[] {
  const merged: WindowMove[] = []
  for (const [key, by, startAt, amount] of windows) {
    const same = merged.findIndex((other) => other[0] === key && other[1] === by && other[2] === startAt)
    const other = merged[same]
    if (other === undefined) merged.push([key, by, startAt, amount])
    else merged[same] = [key, by, startAt, add(other[3], amount)]
  }
  return merged
}
