/** What every operation of the engine goes through: the store's transaction, and faults turned into errors. */
import { hash, randomFillSync } from 'node:crypto'
import { SluiceError } from '../errors.ts'
import type { Cells, Key } from '../kernel/cells.ts'
import type { Context, StepOutcome } from '../kernel/draft.ts'
import type { Reply } from '../kernel/faults.ts'
import type { PriorityClass } from '../kernel/plan.ts'
import type { Sha256 } from '../ledger/entries.ts'
import type { Env, Store } from '../store.ts'
import { AmountOverflow } from '../units.ts'
import type { Caller } from './contract.ts'
import { errorOf } from './present.ts'

export const sha256: Sha256 = (text) => hash('sha256', text)

const SALT_BYTES = 16
const pool = Buffer.alloc(256 * SALT_BYTES)
let pooled = 0
/**
 * 128 random bits as hex. Not a UUID: V8 puts one together from many pieces, and `JSON.stringify` takes a way half as fast
 * when it meets a text in pieces.
 */
function freshSalt(): string {
  if (pooled === 0) {
    randomFillSync(pool)
    pooled = pool.length
  }
  pooled -= SALT_BYTES
  return pool.toString('hex', pooled, pooled + SALT_BYTES)
}

/** `crypto.hash` with its default output costs 0.6 µs for an entry. */
export const contextOf = ({ actor, subject, unpriced }: Caller): Context => ({
  actor,
  subject,
  isUnpricedFree: unpriced === 'free',
  salt: freshSalt(),
  sha256,
})
export const SYSTEM_CALLER: Caller = { actor: 'system' }

type RunStep<T> = (cells: Cells, env: Env) => StepOutcome<Reply<T>>
export interface Core {
  readonly store: Store
  /** Account → told when this process has written entries of it. */
  readonly listeners: Map<string, () => void>
  /** Runs a step and unwraps its reply: a fault becomes an error. */
  run<T>(account: string, keys: readonly Key[], step: RunStep<T>, priority?: PriorityClass): Promise<T>
}

export function createCore(store: Store): Core {
  const listeners = new Map<string, () => void>()
  return {
    store,
    listeners,
    run<T>(account: string, keys: readonly Key[], step: RunStep<T>, priority?: PriorityClass) {
      const listener = listeners.get(account)
      return (
        listener === undefined
          ? store.transact(account, keys, step, priority)
          : heard(listener, step, (noticed) => store.transact(account, keys, noticed, priority))
      ).then(unwrap<T>, asError)
    },
  }
}

/** Tells the listener where the step wrote entries: also where the commit failed, since that may be a commit that nobody knows of. */
function heard<T>(
  listener: () => void,
  step: RunStep<T>,
  transact: (noticed: RunStep<T>) => Promise<Reply<T>>,
): Promise<Reply<T>> {
  let wrote = false
  return transact((cells, env) => {
    const outcome = step(cells, env)
    wrote = 'entries' in outcome && outcome.entries.length > 0
    return outcome
  }).finally(() => {
    if (wrote) listener()
  })
}

function unwrap<T>(reply: Reply<T>): T {
  if ('fault' in reply) throw errorOf(reply.fault)
  return reply.ok
}

/** Whatever else went wrong inside a step is Sluice's own; nothing was written. */
function asError(error: unknown): never {
  if (error instanceof SluiceError) throw error
  if (error instanceof AmountOverflow) {
    throw new SluiceError('amount_overflow', error.message, {
      remedy: 'send smaller amounts; one account counts up to 9007199254.740991 CU',
      cause: error,
    })
  }
  throw new SluiceError('internal', 'a step failed; nothing was changed', {
    remedy: 'report it, with the log line of this request',
    cause: error,
  })
}
