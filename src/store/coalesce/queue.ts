import { SluiceError } from '../../errors.ts'
import type { Key } from '../../kernel/cells.ts'
import type { PriorityClass } from '../../kernel/plan.ts'
import type { Step } from '../../store.ts'

/** One call of `transact`, waiting or being decided. */
export interface Op {
  readonly account: string
  readonly keys: readonly Key[]
  /** Keys that the step asked for when it was run; kept, so that a second run has them at once. */
  extra: Key[] | undefined
  /** How often it has asked. */
  needs: number
  readonly step: Step<unknown>
  readonly resolve: (result: unknown) => void
  readonly reject: (error: unknown) => void
  /** What the last run answered, until the commit lets it out. */
  failed: boolean
  outcome: unknown
  next: Op | undefined
}

/** The operations that one account has waiting, first come, first served. */
interface Line {
  readonly account: string
  head: Op | undefined
  tail: Op | undefined
  length: number
  /** In a batch in flight: its operations wait for that to end, others overtake them. */
  busy: boolean
}

export interface Queue {
  readonly waiting: number
  /** Operations that a batch could take now. */
  readonly ready: boolean
  /** Throws `overloaded` where this class of work has no room. */
  admit(priority: PriorityClass): void
  push(op: Op): void
  /**
   * Takes operations by account, in a fair order: up to `ofOne` of one account, or of several while they are fewer than
   * `share`. The accounts are busy until `release`.
   */
  take(limit: number, share: number, ofOne?: number): Op[][]
  /** Frees the account, with the operations that were taken and not decided back in front. */
  release(account: string, undecided: readonly Op[]): void
}

export interface QueueOptions {
  readonly capacity: number
  /** Milliseconds until about half of what waits has been done. */
  readonly drainMs: (waiting: number) => number
}

/** Shares of the capacity that each class may fill. */
const ROOM: Readonly<Record<PriorityClass, number>> = { sheddable: 0.5, standard: 0.9, critical: 1 }

/** An account with more than this share of a batch waiting makes others wait, and gets a commit of its own. */
const CROWD = 0.25

/**
 * Accounts take turns in the order in which they came to have something waiting. One that has a crowd waiting is passed
 * over while a batch of others forms, stays first in line, and is then served alone; after that it goes to the end. So
 * it gets at most every second batch, and in each a full one.
 */
export function createQueue(options: QueueOptions): Queue {
  const lines = new Map<string, Line>()
  const inLine = new Deque<Line>()
  let waiting = 0

  function admit(priority: PriorityClass): void {
    if (waiting < options.capacity * ROOM[priority]) return
    throw new SluiceError(
      'overloaded',
      `${waiting} operations are waiting, and ${priority} work has no more room`,
      {
        retryAfterMs: options.drainMs(waiting),
        remedy: 'Retry after the time given, with the same ids.',
      },
    )
  }

  function push(op: Op): void {
    let line = lines.get(op.account)
    if (line === undefined) {
      line = { account: op.account, head: undefined, tail: undefined, length: 0, busy: false }
      lines.set(op.account, line)
    }
    if (line.tail === undefined) line.head = op
    else line.tail.next = op
    line.tail = op
    line.length++
    waiting++
    if (line.length === 1 && !line.busy) inLine.push(line)
  }

  function take(limit: number, share: number, ofOne = limit): Op[][] {
    const crowd = limit * CROWD
    const first = inLine.shift()
    if (first === undefined) return []
    const own = takeFrom(first, ofOne)
    const taken = [own]
    if (own.length > crowd) return taken
    let room = share - own.length
    const passed: Line[] = []
    while (room > 0) {
      const line = inLine.shift()
      if (line === undefined) break
      if (line.length > crowd || line.length > room) {
        passed.push(line)
        if (line.length > crowd) continue
        break
      }
      room -= line.length
      taken.push(takeFrom(line, line.length))
    }
    for (let i = passed.length - 1; i >= 0; i--) inLine.unshift(passed[i] as Line)
    return taken
  }

  function takeFrom(line: Line, limit: number): Op[] {
    const ops = new Array<Op>(Math.min(limit, line.length))
    let op = line.head
    for (let place = 0; place < ops.length && op !== undefined; place++) {
      ops[place] = op
      const next: Op | undefined = op.next
      op.next = undefined
      op = next
    }
    line.head = op
    if (op === undefined) line.tail = undefined
    line.length -= ops.length
    line.busy = true
    waiting -= ops.length
    return ops
  }

  function release(account: string, undecided: readonly Op[]): void {
    const line = lines.get(account)
    if (line === undefined) return
    line.busy = false
    for (let i = undecided.length - 1; i >= 0; i--) {
      const op = undecided[i] as Op
      op.next = line.head
      line.head = op
      line.tail ??= op
      line.length++
      waiting++
    }
    if (line.length > 0) inLine.push(line)
    else lines.delete(account)
  }

  return {
    get waiting() {
      return waiting
    },
    get ready() {
      return inLine.size > 0
    },
    admit,
    push,
    take,
    release,
  }
}

/** A list that gives and takes at its front without moving the rest. */
class Deque<T> {
  private items: (T | undefined)[] = []
  private from = 0

  get size(): number {
    return this.items.length - this.from
  }
  push(item: T): void {
    this.items.push(item)
  }
  unshift(item: T): void {
    if (this.from === 0) {
      // Room for as many again, so that putting back stays cheap.
      const room = Math.max(16, this.items.length)
      this.items = [...new Array<undefined>(room), ...this.items]
      this.from = room
    }
    this.from--
    this.items[this.from] = item
  }
  shift(): T | undefined {
    if (this.size === 0) return undefined
    const item = this.items[this.from]
    this.items[this.from] = undefined
    this.from++
    if (this.from > 1024 && this.from * 2 > this.items.length) {
      this.items = this.items.slice(this.from)
      this.from = 0
    }
    return item
  }
}
