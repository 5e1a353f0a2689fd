/** Writes a checkpoint: what an audit found that the account's entries add up to, so that a later audit may begin there. */
import { assert } from '../assert.ts'
import type { ChainHead, CheckpointState } from '../ledger/entries.ts'
import { advance } from './advance.ts'
import type { Cells } from './cells.ts'
import { type Context, onAccount, type StepEnv, type StepOutcome } from './draft.ts'
import type { Reply } from './faults.ts'

export interface CheckpointOp {
  readonly account: string
  /** The last entry that was audited; the account may have moved on since. */
  readonly head: ChainHead
  readonly state: CheckpointState
  /** The account's newest checkpoint and newest erasure as its cell had them before the audit read the first entry. */
  readonly checkpoint: number | undefined
  readonly erased: number | undefined
}

/**
 * Writes the state as the private part of a new entry; the checkpoint before it loses its own, since only the newest is ever
 * read. Where someone was erased after the audit began, nothing is written: the state may name whom the entries no longer do.
 * Nor where another audit has written one meanwhile.
 */
export function writeCheckpoint(
  cells: Cells,
  env: StepEnv,
  context: Context,
  op: CheckpointOp,
): StepOutcome<Reply<{ readonly written: boolean }>> {
  return onAccount<{ readonly written: boolean }>(cells, env, context, op.account, (draft) => {
    const { account } = draft
    const { checkpoint: before } = account
    if (account.erased !== op.erased || before !== op.checkpoint)
      return { result: { written: false }, keep: false }
    assert(op.head.seq <= account.head.seq, 'a checkpoint is as of an entry that the account has')
    advance(draft)
    const { grants, requests } = op.state
    const detail = {
      as_of: op.head.seq,
      hash: op.head.hash,
      grants: grants.length,
      requests: requests.length,
    }
    const person = { subject: {}, state: op.state }
    account.checkpoint = draft.change('checkpoint', detail, { previous: before, person })
    if (before !== undefined) draft.erased = [before]
    return { result: { written: true }, keep: true }
  })
}
