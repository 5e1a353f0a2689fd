/** Live cells as far as the audit looks at them; the kernel's cells have these fields and more. */
import type { Micros, Millis } from '../../units.ts'
import type { Books } from '../books.ts'
import type { ChainHead } from '../entries.ts'
import type { Grant, Subject } from '../grants.ts'

export interface LiveWindow {
  readonly startAt: Millis
  readonly endAt: Millis
  readonly used: Micros
  readonly held: Micros
}
export interface LiveCounters {
  readonly windows: Readonly<Record<string, LiveWindow>>
  /** Ends of the open holds under each concurrency guard, ascending. */
  readonly concurrency: Readonly<Record<string, readonly Millis[]>>
}
export interface LiveOverride {
  readonly limit: Micros
  readonly untilAt: Millis | null
}
export interface LiveAccount {
  readonly id: string
  readonly plan: string
  readonly status: string
  readonly zone: string
  readonly lastAt: Millis
  readonly head: ChainHead
  readonly counters: LiveCounters
  readonly grants: readonly Grant[]
  readonly books: Books
  readonly subjectCounts: Readonly<Record<string, number>>
  readonly overrides: Readonly<Record<string, LiveOverride>>
  readonly openHolds: number
  readonly dueAt: Millis | null
  /** Number of its newest checkpoint. */
  readonly checkpoint?: number
  /** Where its journal begins, since older entries were let go. */
  readonly retained?: { readonly seq: number }
}
export interface LiveSubject {
  readonly dimension: string
  readonly value: string
  readonly counters: LiveCounters
  readonly overrides: Readonly<Record<string, LiveOverride>>
}
export interface LivePart {
  readonly source: string
  readonly amount: Micros
  readonly by?: string
  readonly windows?: readonly (readonly [key: string, startAt: Millis])[]
}
export interface LiveGuard {
  readonly kind: 'rate' | 'concurrency' | 'budget'
  readonly name: string
  readonly by?: string
  readonly amount: number
  readonly at: Millis
}
export interface LiveRequest {
  readonly id: string
  readonly state: string
  readonly expiresAt: Millis | null
  readonly subject: Subject
  readonly hold?:
    | {
        readonly granted: Micros
        readonly parts: readonly LivePart[]
        readonly guards: readonly LiveGuard[]
      }
    | undefined
  readonly charge?: {
    readonly seq: number
    readonly cost: Micros
    readonly refunded: Micros
    readonly parts: readonly LivePart[]
  }
  readonly seqs: { readonly decision?: number; readonly step?: number; readonly last?: number }
}
export interface LiveGrantCell {
  readonly id: string
  readonly grant: Grant
  readonly repaid: Micros
  readonly seq: number
  readonly revokedSeq?: number
}

/** What of an account lives, read at one moment: between two looks at the account's cell its head has not moved. */
export interface LiveCells {
  readonly account: LiveAccount
  readonly subjects: Iterable<LiveSubject>
  /** All open requests. */
  readonly holds: Iterable<LiveRequest>
  /** All grant cells; left out, they are not compared. */
  readonly grants?: Iterable<LiveGrantCell>
}
