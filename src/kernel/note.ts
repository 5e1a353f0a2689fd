/**
 * A note on a request: a line that whoever does the work writes down for itself, such as what an upstream calls it. It decides
 * nothing and costs nothing, so it is no entry; it lives and goes with the request's cell.
 */
import { type Cells, type RequestCell, requestKey } from './cells.ts'
import { catchSignals, checked, type StepOutcome } from './draft.ts'
import { fail, type Reply } from './faults.ts'

export interface NoteOp {
  readonly account: string
  readonly requestId: string
  /** Written only where this is what stands: of several that write at once one is first. Undefined: where nothing stands. */
  readonly before: string | undefined
  readonly note: string
}

/** Answers the request as it stands afterwards, whoever was first. */
export function note(cells: Cells, op: NoteOp): StepOutcome<Reply<RequestCell>> {
  return catchSignals<Reply<RequestCell>>(() => {
    const key = requestKey(op.requestId)
    const known = cells.get(key) as RequestCell | null
    if (known === null) {
      fail('request_unknown', `account ${op.account} has no request ${op.requestId}`, {
        path: '/request_id',
        remedy: 'reserve it first',
      })
    }
    if (checked(known).note !== op.before) return { result: { ok: known }, writes: [], entries: [] }
    const cell: RequestCell = { ...known, note: op.note }
    return { result: { ok: cell }, writes: [{ key, cell }], entries: [] }
  })
}
