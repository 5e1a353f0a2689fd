/** Writes a checkpoint: what an audit found that the account's entries add up to, so that a later audit may begin there. */
import { assert } from '../assert.ts'
import type { ChainHead, CheckpointState } from '../ledger/entries.ts'
import type { Millis } from '../units.ts'
import { advance } from './advance.ts'
import type { Cells } from './cells.ts'
import { type Context, type Draft, onAccount, type StepEnv, type StepOutcome } from './draft.ts'
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

export interface RetainOp {
  readonly account: string
  /** The last entry that is to go; the account may have moved on since. */
  readonly head: ChainHead
  readonly state: CheckpointState
  /** Entries that were recorded before this may go. */
  readonly before: Millis
  /** Numbers as the account's cell had them before the audit read the first entry. */
  readonly retained: number | undefined
  readonly erased: number | undefined
}

/**
 * Writes what the entries add up to that are to be let go. From then on audits begin behind them: so its state stays when later
 * checkpoints are written, and only the next one of its kind takes its place. Where someone was erased after the audit
 * began, nothing is written, and it has to be done again.
 */
export function writeRetained(
  cells: Cells,
  env: StepEnv,
  context: Context,
  op: RetainOp,
): StepOutcome<Reply<{ readonly written: boolean }>> {
  return onAccount<{ readonly written: boolean }>(cells, env, context, op.account, (draft) => {
    const { account } = draft
    const known = account.retained
    if (account.erased !== op.erased || known?.seq !== op.retained)
      return { result: { written: false }, keep: false }
    assert(op.head.seq <= account.head.seq, 'a checkpoint is as of an entry that the account has')
    advance(draft)
    keepRetained(draft, op.before, op.head, op.state)
    return { result: { written: true }, keep: true }
  })
}

/** In the place of the one that there was, whose state goes. */
export function keepRetained(draft: Draft, before: Millis, head: ChainHead, state: CheckpointState): void {
  const { account } = draft
  const known = account.retained
  const detail = {
    before,
    as_of: head.seq,
    hash: head.hash,
    grants: state.grants.length,
    requests: state.requests.length,
  }
  const seq = draft.change('retained', detail, { previous: known?.seq, person: { subject: {}, state } })
  account.retained = { seq, asOf: head.seq, before }
  if (known !== undefined) draft.erased = [...(draft.erased ?? []), known.seq]
}
