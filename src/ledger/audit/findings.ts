/** What an audit says when two things that must agree do not. */
import { formatMicros, type Micros, type Millis } from '../../units.ts'

/**
 * - `format`: a line or cell that cannot be read as what it must be
 * - `chain`: a line that was changed, moved or stands twice: its hash does not follow from the one before
 * - `missing`: lines or cells that must be there and are not
 * - `head`: the end of the journal is not the one that was kept elsewhere
 * - `private`: the erasable part of a line is not the one that was written
 * - `checkpoint`: a checkpoint that says something else than the entries before it add up to
 * - `charge`: a use without its charge, a charge without its use, a wrong price, cover that does not sum to the cost
 * - `transfer`: a movement of credits that is impossible, or belongs to no charge
 * - `balance`: a ledger account in the cell, or at some entry, that the transfers do not give
 * - `grant`, `window`, `hold`, `account`: a live cell that the entries do not give
 * - `usage`: a total of usage that the entries it counts do not add up to; it is told by the engine, which makes totals
 */
export type FindingKind =
  | 'format'
  | 'chain'
  | 'missing'
  | 'head'
  | 'private'
  | 'checkpoint'
  | 'charge'
  | 'transfer'
  | 'balance'
  | 'grant'
  | 'window'
  | 'hold'
  | 'account'
  | 'usage'

/** One disagreement. The message is half a sentence that says both sides; where it is stands in the fields beside it. */
export interface Finding {
  readonly account: string
  readonly kind: FindingKind
  readonly message: string
  /** The entry it was found at. */
  readonly seq?: number
  readonly request?: string
  /** By how much the two sides differ, or what the entry says. */
  readonly amount?: Micros
}

export interface About {
  readonly seq?: number | undefined
  readonly request?: string | undefined
  readonly amount?: Micros | undefined
}
export type Tell = (kind: FindingKind, message: string, about?: About) => void

/** Hands findings on, each with its account. */
export function teller(account: string, found: (finding: Finding) => void): Tell {
  return (kind, message, { seq, request, amount } = {}) =>
    found({
      account,
      kind,
      message,
      ...(seq === undefined ? {} : { seq }),
      ...(request === undefined ? {} : { request }),
      ...(amount === undefined ? {} : { amount }),
    })
}

export const cu = (micros: Micros): string => `${formatMicros(micros)} CU`

/** An instant in UTC, or whatever damaged line says it is. */
export const instant = (at: Millis): string =>
  Number.isSafeInteger(at) && Math.abs(at) <= 8.64e15
    ? Temporal.Instant.fromEpochMilliseconds(at).toString()
    : String(at)

/** Runs one comparison; a cell that has not even its fields is told and passed over. */
export function guarded(tell: Tell, what: string, compare: () => void): void {
  try {
    compare()
  } catch (error) {
    tell('format', `${what} cannot be read: ${error instanceof Error ? error.message : String(error)}`)
  }
}
