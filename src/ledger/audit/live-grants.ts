/** Live grants against what was issued and transferred. */
import type { Micros, Millis } from '../../units.ts'
import type { Grant } from '../grants.ts'
import { cu, guarded, type Tell } from './findings.ts'
import { type GrantTrace, type Journal, remainingOf } from './journal.ts'
import type { LiveAccount, LiveGrantCell } from './live.ts'

export function compareGrants(journal: Journal, account: LiveAccount, tell: Tell): void {
  const live = new Map<string, Grant>()
  for (const grant of account.grants) {
    if (live.has(grant.id))
      tell('grant', `grant ${grant.id} stands in the cell twice`, { amount: grant.remaining })
    live.set(grant.id, grant)
  }
  for (const [id, trace] of journal.grants) {
    const grant = live.get(id)
    live.delete(id)
    const remaining = remainingOf(trace)
    compareSums(id, trace, remaining, grant?.remaining ?? 0, grant?.held ?? 0, tell)
    if (grant !== undefined) {
      compareGrantTerms(id, trace, grant, 'its cell', tell)
      compareEnd(journal, trace, grant, account.lastAt, tell)
    }
  }
  for (const { id, remaining } of live.values())
    tell('grant', `grant ${id} has ${cu(remaining)} left in the cell, and was never issued`, {
      amount: remaining,
    })
}

function compareSums(
  id: string,
  trace: GrantTrace,
  right: Micros,
  says: Micros,
  held: Micros,
  tell: Tell,
): void {
  const { seq } = trace
  if (says !== right)
    tell('grant', `grant ${id} has ${cu(says)} left in the cell, and its transfers leave ${cu(right)}`, {
      seq,
      amount: says - right,
    })
  if (held !== trace.held)
    tell(
      'hold',
      `${cu(held)} of grant ${id} are held in the cell, and open requests hold ${cu(trace.held)}`,
      {
        seq,
        amount: held - trace.held,
      },
    )
}

function compareGrantTerms(id: string, trace: GrantTrace, grant: Grant, where: string, tell: Tell): void {
  const terms: readonly [string, unknown, unknown][] = [
    ['amount', grant.amount, trace.amount],
    ['kind', grant.kind, trace.kind],
    ['priority', grant.priority, trace.priority],
    ['start', grant.startsAt, trace.startsAt],
    ['end', grant.expiresAt, trace.expiresAt],
    ['features', (grant.features ?? []).join(', '), (trace.features ?? []).join(', ')],
  ]
  for (const [term, says, right] of terms) {
    if (says === right) continue
    const told = term === 'amount' ? [cu(says as number), cu(right as number)] : [String(says), String(right)]
    tell('grant', `the ${term} of grant ${id} is ${told[0]} in ${where}, and it was issued with ${told[1]}`, {
      seq: trace.seq,
      amount: trace.amount,
    })
  }
}

function compareEnd(journal: Journal, trace: GrantTrace, grant: Grant, lastAt: Millis, tell: Tell): void {
  const over = grant.expiresAt !== null && grant.expiresAt <= lastAt
  const ended = grant.ended !== undefined
  const right = trace.revokedSeq !== null || over
  // A clock that was set back leaves grants ended that by the new time have not come to their end.
  if (ended === right || (journal.repaired && ended)) return
  tell(
    'grant',
    `grant ${grant.id} ${ended ? `is ${grant.ended} in the cell` : 'still pays'}, and by its entries ${right ? 'it has ended' : 'it has not'}`,
    { seq: trace.seq, amount: grant.remaining },
  )
}

/** Cells that recognise a grant's id for good: every grant has one, and it says what was issued. */
export function openGrantCells(journal: Journal, tell: Tell) {
  const seen = new Set<string>()
  return {
    read(cell: LiveGrantCell): void {
      seen.add(cell.id)
      // Issued after the last entry that was read.
      if (cell.seq > journal.head.seq) return
      guarded(tell, `the cell of grant ${cell.id}`, () => compareGrantCell(journal, cell, tell))
    },
    end(): void {
      for (const [id, { seq, amount }] of journal.grants) {
        if (!seen.has(id))
          tell('missing', `the cell of grant ${id} over ${cu(amount)} is missing`, { seq, amount })
      }
    },
  }
}

function compareGrantCell(journal: Journal, cell: LiveGrantCell, tell: Tell): void {
  const trace = journal.grants.get(cell.id)
  const { amount } = cell.grant
  if (trace === undefined)
    return tell('grant', `grant ${cell.id} over ${cu(amount)} was never issued`, { amount })
  const { seq } = trace
  if (cell.seq !== seq)
    tell('grant', `the cell of grant ${cell.id} says that entry ${cell.seq} issued it, and it was ${seq}`, {
      seq,
      amount,
    })
  compareGrantTerms(cell.id, trace, cell.grant, 'the cell of its id', tell)
  if (cell.repaid !== trace.repaidAtOnce)
    tell(
      'grant',
      `grant ${cell.id} repaid ${cu(cell.repaid)} as it was issued by its cell, and ${cu(trace.repaidAtOnce)} by its transfers`,
      {
        seq,
        amount: cell.repaid - trace.repaidAtOnce,
      },
    )
  const { revokedSeq = null } = cell
  if (revokedSeq !== null && revokedSeq > journal.head.seq) return
  if (revokedSeq !== trace.revokedSeq)
    tell(
      'grant',
      `grant ${cell.id} was revoked by entry ${revokedSeq ?? 'none'} by its cell, and by ${trace.revokedSeq ?? 'none'} by the journal`,
      {
        seq,
        amount,
      },
    )
}
