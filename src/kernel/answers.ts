/** What steps answer: kernel values, which the engine turns into what crosses HTTP. */
import type { ChargeEntry, DecisionBody, DecisionEntry, Split } from '../ledger/entries.ts'
import type { Subject } from '../ledger/grants.ts'
import { add, type Micros, type Millis } from '../units.ts'
import type { Advice } from './advise.ts'
import type { RequestCell, RequestState } from './cells.ts'
import type { Draft } from './draft.ts'

export interface Decided {
  readonly requestId: string
  readonly body: DecisionBody
  readonly decidedAt: Millis
  readonly subject: Subject
  readonly state: RequestState | 'none'
  readonly replayed: boolean
  readonly advice?: Advice | undefined
  /** An answer that was worked out and not kept. */
  readonly dryRun?: boolean
}

export interface Charged {
  readonly requestId: string
  readonly state: RequestState
  readonly charged: Micros
  readonly cover: Split
  readonly returned: Micros
  readonly unpriced: readonly string[]
  readonly replayed: boolean
}

export interface Released {
  readonly requestId: string
  readonly state: RequestState
  readonly returned: Micros
  readonly replayed: boolean
}

export interface Refunded {
  readonly requestId: string
  readonly refundId: string
  readonly refunded: Micros
  readonly to: Split
  readonly charged: Micros
  readonly replayed: boolean
}

/** The first answer again, from the entry that is it, with the request's state now. */
export function decidedBefore(draft: Draft, request: RequestCell, seq: number): Decided {
  const { entry, person } = draft.entry(seq)
  const body = entry as DecisionEntry
  return {
    requestId: request.id,
    body,
    decidedAt: body.recorded_at ?? body.at,
    subject: person?.subject ?? {},
    state: request.state,
    replayed: true,
  }
}

export function chargedBefore(draft: Draft, request: RequestCell): Charged {
  const charge = chargeAt(draft, request.charge?.seq ?? 0)
  return chargedFrom(request, { ...charge, cover: wholeCover(draft, request, charge) }, true)
}

const chargeAt = (draft: Draft, seq: number): ChargeEntry => draft.entry(seq).entry as ChargeEntry

/** What covered the use in all when this was charged: a charge that corrects another holds only the difference. */
function wholeCover(draft: Draft, request: RequestCell, charge: ChargeEntry): Split {
  if (charge.corrects === undefined) return charge.cover
  const refunds = request.refunds.map(([, seq]) => seq).filter((seq) => seq < charge.seq)
  const sums = new Map<string, Micros>()
  for (const { cover } of [...[charge.corrects, ...refunds].map((seq) => chargeAt(draft, seq)), charge]) {
    for (const [source, amount] of cover) {
      const sum = add(sums.get(source) ?? 0, amount)
      // What is given back altogether and drawn again stands where it was drawn again.
      if (sum === 0) sums.delete(source)
      else sums.set(source, sum)
    }
  }
  return [...sums]
}

export function chargedFrom(
  request: RequestCell,
  charge: Pick<ChargeEntry, 'cost' | 'total' | 'cover' | 'returned' | 'unpriced'>,
  replayed: boolean,
): Charged {
  return {
    requestId: request.id,
    state: request.state,
    charged: charge.total ?? charge.cost,
    cover: charge.cover,
    returned: charge.returned ?? 0,
    unpriced: charge.unpriced ?? [],
    replayed,
  }
}
