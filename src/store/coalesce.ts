/**
 * Callers share commits. Operations wait in one bounded queue; batches of them are decided here, step by step, and
 * written by a backend in one transaction each. Everything that the contract in `store.ts` promises of `transact` is
 * kept in this one place, whatever the database: order, isolation of failures, the view inside a batch, admission,
 * trust in the clock. A backend only reads, writes, and says how a write failed.
 */
import { SluiceError } from '../errors.ts'
import type { Cell, Key } from '../kernel/cells.ts'
import type { PriorityClass } from '../kernel/plan.ts'
import type { Env, Readings, Step, StoreHost } from '../store.ts'
import type { Millis } from '../units.ts'
import { type Backend, type Change, CommitError, type Missing, type Session } from './coalesce/backend.ts'
import { type NodeClocks, watchClock } from './coalesce/clock.ts'
import { createPace } from './coalesce/pace.ts'
import { PolicyWanted, policies, SYSTEM_ACCOUNT } from './coalesce/policies.ts'
import { createQueue, type Op } from './coalesce/queue.ts'
import { pause, soon } from './coalesce/soon.ts'
import { apply, handOver, isTouched, lookAll, type Share, shareOf } from './coalesce/view.ts'

export type {
  Backend,
  Change,
  CommitOutcome,
  Missing,
  OpenHolds,
  Reader,
  Session,
  Wanted,
} from './coalesce/backend.ts'
export { CommitError } from './coalesce/backend.ts'
export { withinMoment } from './coalesce/moment.ts'
export { EMPTY_POLICY, SYSTEM_ACCOUNT } from './coalesce/policies.ts'
export { byEnd } from './coalesce/view.ts'

/** Bounds of queue and batches. The defaults suit a server; tests narrow them. */
export interface Limits {
  /** Operations that may wait. Sheddable work is refused from half of it on, standard work from nine tenths. */
  readonly maxQueued?: number
  /** Operations that may share one commit. */
  readonly maxBatch?: number
  /** Bytes that one commit may write, exceeded by one account at most. */
  readonly maxBatchBytes?: number
  /** Milliseconds of deciding after which a batch is written with what it has. */
  readonly maxDecideMs?: number
}

export interface CoalescerOptions {
  readonly limits?: Limits | undefined
  readonly clocks: NodeClocks
  readonly host: () => StoreHost
  /** Looks at each cell that a step wants written, and throws where it may not be: then the step has failed. */
  readonly inspect?: ((key: Key, cell: Cell) => void) | undefined
}

export interface Coalescer {
  transact<T>(account: string, keys: readonly Key[], step: Step<T>, priority?: PriorityClass): Promise<T>
  /** Runs work that must not meet a batch: waits for those in flight, lets no other begin. */
  exclusive(work: () => Promise<void>): Promise<void>
  /** Operations that wait for a batch. */
  readonly queued: number
  /** Operations committed a second, of late. */
  readonly rate: number
  /** Whether a reading of the store's clock can be believed. */
  trusts(storeAt: Millis): boolean
  acceptClock(storeAt: Millis): void
  /** Refuses what comes, and resolves when all that was accepted is answered. */
  close(): Promise<void>
}

const DEFAULTS = { maxQueued: 10_000, maxBatch: 256, maxBatchBytes: 4_000_000, maxDecideMs: 3 }
/** Times that one step may ask for more before it is taken for one that never has enough. */
const MAX_NEEDS = 32
/** Operations of one account in a batch that make it worth to decide its next ones while these are on their way. */
const CROWDED = 16
/** Pauses before a batch of unknown outcome is run again; after the last its callers are told. */
const UNKNOWN_PAUSES_MS = [0, 50, 200, 1000]
const NO_READINGS: Readings = Object.freeze({})

/** What is known of one batch while it is decided. */
interface Batch {
  readonly session: Session
  readonly env: Env
  /** When it has decided for long enough; waiting for a fetch does not count. */
  until: number
  readonly missing: Missing[]
  /** Decided, and to be answered after the commit. */
  readonly deferred: Op[]
  /** Changes of crowded accounts, which their next batch may build on. */
  readonly passing: { readonly share: Share; readonly change: Change }[]
  /** Accounts whose changes could not be taken, with the error. */
  readonly refused: { readonly ops: readonly Op[]; readonly error: unknown }[]
  bytes: number
  decided: number
  staged: number
  entries: number
}

export function createCoalescer(backend: Backend, options: CoalescerOptions): Coalescer {
  const limits = { ...DEFAULTS, ...options.limits }
  const clock = watchClock(options.clocks)
  const policySets = policies(options.host)
  const pace = createPace()
  const queue = createQueue({ capacity: limits.maxQueued, drainMs: pace.drainMs })
  const exclusives: (() => void)[] = []
  /** Changes of crowded accounts in flight, the oldest first. */
  const onTheWay = new Map<string, Change[]>()
  let inFlight = 0
  let opsInFlight = 0
  let recoveries = 0
  let lastRecovery: Promise<void> = Promise.resolve()
  let exclusiveRunning = false
  let turnComing = false
  let closing: Promise<void> | undefined
  let whenIdle: (() => void) | undefined

  function transact<T>(
    account: string,
    keys: readonly Key[],
    step: Step<T>,
    priority: PriorityClass = 'standard',
  ): Promise<T> {
    return new Promise<T>((resolve, reject) => {
      if (closing !== undefined) throw new SluiceError('closing', 'The store is closing')
      queue.admit(priority)
      queue.push({
        account,
        keys,
        extra: undefined,
        needs: 0,
        step,
        resolve: resolve as (result: unknown) => void,
        reject,
        failed: false,
        outcome: undefined,
        next: undefined,
      })
      comeAround()
    })
  }

  /** Batches begin in a turn of their own, so that what arrives together goes together, and input is served between. */
  function comeAround(): void {
    if (turnComing) return
    turnComing = true
    soon(turn)
  }

  function turn(): void {
    turnComing = false
    if (exclusiveRunning || recoveries > 0) return
    const exclusive = exclusives[0]
    if (exclusive !== undefined) {
      if (inFlight > 0) return
      exclusives.shift()
      exclusive()
      return
    }
    if (inFlight < backend.lanes && queue.ready && (inFlight === 0 || queue.waiting >= backend.overlapFrom)) {
      inFlight++
      const room = shareOfOne()
      const shares = queue
        .take(limits.maxBatch, room, backend.inOrder ? room : limits.maxBatch)
        .map((ops) => {
          const { account } = ops[0] as Op
          return shareOf(account, ops, onTheWay.get(account)?.slice())
        })
      const operations = shares.reduce((sum, share) => sum + share.ops.length, 0)
      opsInFlight += operations
      run(shares, limits.maxDecideMs, 0, false).then(
        () => finish(shares, operations),
        (error) => {
          // Nothing above throws; if it did, no caller may be left waiting.
          for (const share of shares) for (const op of share.ops) op.reject(error)
          finish(shares, operations)
        },
      )
      if (queue.ready) comeAround()
    } else if (inFlight === 0 && queue.waiting === 0) whenIdle?.()
  }

  /**
   * How much of the work one batch takes. Callers who wait for an answer come back together when their batch is done; if
   * one batch took all of them, there would never be anything to decide while it is written.
   */
  function shareOfOne(): number {
    const each = Math.ceil((queue.waiting + opsInFlight) / backend.lanes)
    return Math.min(limits.maxBatch, Math.max(each, backend.overlapFrom))
  }

  function finish(shares: readonly Share[], operations: number): void {
    inFlight--
    opsInFlight -= operations
    for (const share of shares)
      if (!share.passedOn) queue.release(share.account, share.ops.slice(share.decided))
    comeAround()
  }

  /** Lets the next batch of crowded accounts build on this one. Answers what undoes it when this one has come to an end. */
  function passOn({ passing }: Batch): () => void {
    for (const { share, change } of passing) {
      const changes = onTheWay.get(change.account)
      if (changes === undefined) onTheWay.set(change.account, [change])
      else changes.push(change)
      share.passedOn = true
      queue.release(share.account, share.ops.slice(share.decided))
    }
    if (passing.length > 0) comeAround()
    return () => {
      for (const { change } of passing) {
        const changes = onTheWay.get(change.account)?.filter((other) => other !== change) ?? []
        if (changes.length === 0) onTheWay.delete(change.account)
        else onTheWay.set(change.account, changes)
      }
    }
  }

  /**
   * Decides and commits one batch, and answers its operations. Operations left undecided are the caller's to requeue.
   * `again` where it is part of a recovery.
   */
  async function run(
    shares: readonly Share[],
    decideMs: number,
    repeats: number,
    again: boolean,
  ): Promise<void> {
    const startedAt = performance.now()
    let batch: Batch
    try {
      const begun = backend.begin(shares)
      const session = begun instanceof Promise ? await begun : begun
      if (!clock.check(session.now)) {
        session.abandon()
        return rejectAll(shares, clockSuspect())
      }
      batch = beginBatch(session, decideMs)
    } catch (error) {
      return rejectAll(shares, toAnswer(error))
    }
    try {
      const fetches = decide(shares, batch)
      if (fetches !== undefined) await fetches
    } catch (error) {
      batch.session.abandon()
      const answer = toAnswer(error)
      for (const op of batch.deferred) op.reject(answer)
      return rejectAll(shares, answer)
    }
    // Who saw what is on its way waits for it, even with nothing to write: commits stand in order.
    if (batch.staged === 0 && batch.deferred.length === 0) batch.session.abandon()
    else {
      try {
        const committed = batch.session.commit()
        if (committed !== undefined) {
          const endPassing = again ? undefined : passOn(batch)
          await committed.finally(endPassing)
        }
      } catch (error) {
        if (again || backend.inOrder !== true) return recover(batch, error, repeats)
        return inTurn(() => recover(batch, error, repeats))
      }
      pace.note(batch.decided)
      options.host().onCommit?.(batch.decided, batch.entries, performance.now() - startedAt)
    }
    for (const op of batch.deferred) settle(op)
    for (const { ops, error } of batch.refused) await split(ops, error)
  }

  function beginBatch(session: Session, decideMs: number): Batch {
    const policy = policySets.seenThrough(session.reader(SYSTEM_ACCOUNT))
    return {
      session,
      env: { now: session.now, policy, readings: NO_READINGS },
      until: performance.now() + decideMs,
      missing: [],
      deferred: [],
      passing: [],
      refused: [],
      bytes: 0,
      decided: 0,
      staged: 0,
      entries: 0,
    }
  }

  /** One pass over the accounts decides all that needs nothing fetched; the rest goes on after one fetch for all. */
  function decide(shares: readonly Share[], batch: Batch): Promise<void> | undefined {
    const blocked: Share[] = []
    for (const share of shares) {
      const away = batch.session.away?.get(share.account)
      if (away !== undefined) {
        if (away !== null) rejectAll([share], away)
        continue
      }
      share.reader ??= batch.session.reader(share.account)
      if (decideShare(share, batch)) stage(share, batch)
      else blocked.push(share)
    }
    if (blocked.length === 0) return undefined
    const askedAt = performance.now()
    return batch.session.fetch(batch.missing.splice(0)).then(() => {
      batch.until += performance.now() - askedAt
      return decide(blocked, batch)
    })
  }

  /** False where a step waits for something to be fetched. */
  function decideShare(share: Share, batch: Batch): boolean {
    while (share.decided < share.ops.length) {
      if (batch.decided > 0 && (batch.bytes >= limits.maxBatchBytes || performance.now() >= batch.until))
        break
      const op = share.ops[share.decided] as Op
      if (!runStep(op, share, batch)) return false
      share.decided++
      batch.decided++
      // An operation that saw nothing uncommitted shows nothing that could be lost.
      if (isTouched(share) || share.earlier.length > 0) batch.deferred.push(op)
      else settle(op)
    }
    return true
  }

  function runStep(op: Op, share: Share, batch: Batch): boolean {
    const want = (key: Key): void => {
      batch.missing.push({ account: share.account, key })
    }
    try {
      while (op.needs < MAX_NEEDS) {
        const cells = lookAll(share, op, batch.env.now, want)
        if (cells === undefined) return false
        const answer = op.step(cells, batch.env)
        if (!('need' in answer)) {
          if (options.inspect !== undefined) {
            for (const { key, cell } of answer.writes) if (cell !== null) options.inspect(key, cell)
          }
          apply(share, answer)
          op.failed = false
          op.outcome = answer.result
          return true
        }
        const added = answer.need.filter((key) => !cells.has(key))
        if (added.length === 0) break
        op.needs++
        op.extra = op.extra === undefined ? added : [...op.extra, ...added]
      }
      throw new SluiceError('internal', 'A step asks for what it has been given, or never has enough')
    } catch (error) {
      if (error instanceof PolicyWanted) {
        batch.missing.push({ account: SYSTEM_ACCOUNT, key: error.key })
        return false
      }
      op.failed = true
      op.outcome = error
      return true
    }
  }

  function stage(share: Share, batch: Batch): void {
    if (!isTouched(share)) return
    const change = handOver(share)
    try {
      batch.bytes += batch.session.stage(change)
      batch.staged++
      batch.entries += change.entries.length
      if (backend.inOrder && share.ops.length >= CROWDED) batch.passing.push({ share, change })
    } catch (error) {
      const ops = batch.deferred.filter((op) => op.account === share.account)
      batch.refused.push({ ops, error })
      const others = batch.deferred.filter((op) => op.account !== share.account)
      batch.deferred.length = 0
      batch.deferred.push(...others)
    }
  }

  /**
   * Batches that fail together are run again one after the other, in the order in which they were decided, and nothing new
   * begins before all of them have. The first waits until all have been told.
   */
  function inTurn(work: () => Promise<void>): Promise<void> {
    recoveries++
    const told = new Promise<void>(soon)
    const mine = Promise.all([lastRecovery, told])
      .then(work)
      .finally(() => {
        recoveries--
        comeAround()
      })
    lastRecovery = mine.catch(() => {})
    return mine
  }

  async function recover(batch: Batch, error: unknown, repeats: number): Promise<void> {
    const outcome = error instanceof CommitError ? error.outcome : 'refused'
    if (outcome === 'refused') await split(batch.deferred, error)
    else if (outcome === 'passed_over') await runAgain(batch.deferred, repeats)
    else if (outcome === 'unknown' && repeats < UNKNOWN_PAUSES_MS.length) {
      await pause(UNKNOWN_PAUSES_MS[repeats] ?? 0)
      await runAgain(batch.deferred, repeats + 1)
    } else for (const op of batch.deferred) op.reject(toAnswer(error))
    for (const { ops, error: cause } of batch.refused) await split(ops, cause)
  }

  /** Something among these operations cannot be stored: each half is run again, until it stands alone. */
  async function split(ops: readonly Op[], error: unknown): Promise<void> {
    const [only] = ops
    if (only === undefined) return
    if (ops.length === 1) return only.reject(toAnswer(error))
    const middle = Math.ceil(ops.length / 2)
    await runAgain(ops.slice(0, middle), 0)
    await runAgain(ops.slice(middle), 0)
  }

  /** Runs operations whose accounts are still this batch's, all of them, before anything that waits behind them. */
  async function runAgain(ops: readonly Op[], repeats: number): Promise<void> {
    let left = ops
    while (left.length > 0) {
      const shares = sharesOf(left)
      await run(shares, Number.POSITIVE_INFINITY, repeats, true)
      left = shares.flatMap((share) => share.ops.slice(share.decided))
    }
  }

  function exclusive(work: () => Promise<void>): Promise<void> {
    return new Promise((resolve, reject) => {
      exclusives.push(() => {
        exclusiveRunning = true
        work()
          .then(resolve, reject)
          .finally(() => {
            exclusiveRunning = false
            comeAround()
          })
      })
      comeAround()
    })
  }

  function close(): Promise<void> {
    closing ??= new Promise((resolve) => {
      whenIdle = resolve
      comeAround()
    })
    return closing
  }

  return {
    transact,
    exclusive,
    get queued() {
      return queue.waiting
    },
    get rate() {
      return pace.perSecond
    },
    trusts: clock.check,
    acceptClock: clock.accept,
    close,
  }
}

function settle(op: Op): void {
  if (op.failed) op.reject(op.outcome)
  else op.resolve(op.outcome)
}

function rejectAll(shares: readonly Share[], error: unknown): void {
  for (const share of shares) {
    for (const op of share.ops.slice(share.decided)) op.reject(error)
    share.decided = share.ops.length
  }
}

/** The same operations as new shares: order inside an account is kept. */
function sharesOf(ops: readonly Op[]): Share[] {
  const byAccount = new Map<string, Op[]>()
  for (const op of ops) {
    const own = byAccount.get(op.account)
    if (own === undefined) byAccount.set(op.account, [op])
    else own.push(op)
  }
  return [...byAccount].map(([account, own]) => shareOf(account, own))
}

function toAnswer(error: unknown): SluiceError {
  if (error instanceof CommitError) return error.answer
  if (error instanceof SluiceError) return error
  return new SluiceError('internal', 'The store failed', { cause: error })
}

function clockSuspect(): SluiceError {
  return new SluiceError('clock_suspect', 'The store’s clock has jumped by more than a minute', {
    remedy: 'Set the clock right, or accept it as it stands if it is right now.',
    retryAfterMs: 5_000,
  })
}
