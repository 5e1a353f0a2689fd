/**
 * Waiting instead of refusing: calls that are told `wait`, and for no longer than may be, stand in a row of their own for each
 * account and subject. The first of a row asks again; the others wait for it, and who comes later stands behind them before it
 * asks at all, so that nobody overtakes and nobody asks in vain.
 */
import type { Millis } from '../units.ts'

export interface Waiting {
  readonly size: number
  /** Something was given back to the account: whoever waits for it may ask at once. */
  wake(account: string): void
  /**
   * Asks, and again until the answer is that it no longer waits, or until the time is over or there is no room to wait; answers
   * what was answered last. That may be what somebody before it in the row was answered, where its own turn never came.
   * Rejects with the signal's reason.
   */
  stand<T>(one: Standing<T>): Promise<T>
}

export interface Standing<T> {
  readonly account: string
  /** Who stands in one row, where all ask for answers of one kind. */
  readonly row: string
  /** How long the answer says to wait; undefined where it does not, so that waiting is over. */
  waitMs(answer: T): Millis | undefined
  readonly ask: () => Promise<T>
  readonly mostMs: Millis
  readonly signal: AbortSignal
}

export interface WaitingOptions {
  readonly perAccount: number
  readonly inAll: number
}

/** Between two questions of a row, however early the answer says that it may be asked. */
const LEAST_PAUSE_MS = 20
/** What a timer of the platform takes. */
const MAX_TIMER_MS = 2 ** 31 - 1

interface Row {
  readonly turns: (() => void)[]
  /** What the first was told last, and until when that says to wait. */
  told: unknown
  until: Millis
}
interface Account {
  standing: number
  /** Counted, so that what wakes while somebody asks is not missed. */
  wakes: number
  readonly sleepers: Set<() => void>
}

export function createWaiting({ perAccount, inAll }: WaitingOptions): Waiting {
  const accounts = new Map<string, Account>()
  const rows = new Map<string, Row>()
  let size = 0

  async function stand<T>(one: Standing<T>): Promise<T> {
    const { account, row, waitMs, ask, mostMs } = one
    const before = rows.get(row)
    const answer = before === undefined ? await ask() : (before.told as T)
    const wait = waitMs(answer)
    if (before === undefined && wait === undefined) return answer
    const isInVain =
      before === undefined ? (wait as Millis) > mostMs : before.until > performance.now() + mostMs
    if (isInVain || size >= inAll || (accounts.get(account)?.standing ?? 0) >= perAccount) return answer
    one.signal.throwIfAborted()
    const state = accounts.getOrInsertComputed(account, () => ({
      standing: 0,
      wakes: 0,
      sleepers: new Set(),
    }))
    state.standing++
    size++
    const over = deadline(mostMs, one.signal)
    try {
      return await inRow(one, state, over.signal, answer)
    } finally {
      over.clear()
      size--
      state.standing--
      if (state.standing === 0) accounts.delete(account)
    }
  }

  async function inRow<T>(one: Standing<T>, state: Account, over: AbortSignal, first: T): Promise<T> {
    const { row, waitMs, ask, mostMs } = one
    const until = performance.now() + mostMs
    let answer = first
    let leave: (() => void) | undefined
    try {
      const queue = rows.get(row)
      if (queue !== undefined) await turn(queue, over)
      leave = () => step(row)
      const line: Row = rows.getOrInsertComputed(row, () => ({ turns: [], told: first, until: 0 }))
      // What it knows is old where it has stood behind others.
      let isKnown = queue === undefined
      for (;;) {
        const { wakes } = state
        if (!isKnown) answer = await ask()
        isKnown = false
        const wait = waitMs(answer)
        if (wait === undefined) return answer
        line.told = answer
        line.until = performance.now() + wait
        if (line.until > until) return answer
        await rest(state, wakes, Math.max(wait, LEAST_PAUSE_MS), over)
      }
    } catch (error) {
      one.signal.throwIfAborted()
      if (!over.aborted) throw error
      // What the row knows is newer than what was known when it came.
      return leave === undefined ? ((rows.get(row)?.told as T | undefined) ?? answer) : answer
    } finally {
      leave?.()
    }
  }

  /** Until everybody before has left the row. */
  function turn({ turns }: Row, signal: AbortSignal): Promise<void> {
    return new Promise((resolve, reject) => {
      const next = (): void => {
        signal.removeEventListener('abort', abort)
        resolve()
      }
      const abort = (): void => {
        const place = turns.indexOf(next)
        if (place !== -1) turns.splice(place, 1)
        reject(signal.reason)
      }
      turns.push(next)
      signal.addEventListener('abort', abort, { once: true })
    })
  }

  function step(row: string): void {
    const next = rows.get(row)?.turns.shift()
    if (next === undefined) rows.delete(row)
    else next()
  }

  async function rest(state: Account, wakes: number, ms: Millis, signal: AbortSignal): Promise<void> {
    const startedAt = performance.now()
    if (state.wakes === wakes) await pause(ms, signal, state.sleepers)
    // However often it is woken, it does not ask without pause.
    const left = LEAST_PAUSE_MS - (performance.now() - startedAt)
    if (left > 0) await pause(left, signal)
  }

  return {
    get size() {
      return size
    },
    wake(account) {
      const state = accounts.get(account)
      if (state === undefined) return
      state.wakes++
      for (const wake of [...state.sleepers]) wake()
    },
    stand,
  }
}

/** Rejects with the signal's reason. Leaves neither timer nor listener. */
function pause(ms: Millis, signal: AbortSignal, sleepers?: Set<() => void>): Promise<void> {
  return new Promise((resolve, reject) => {
    const end = (): void => {
      clearTimeout(timer)
      sleepers?.delete(wake)
      signal.removeEventListener('abort', abort)
    }
    const wake = (): void => {
      end()
      resolve()
    }
    const abort = (): void => {
      end()
      reject(signal.reason)
    }
    const timer = setTimeout(wake, Math.min(ms, MAX_TIMER_MS))
    sleepers?.add(wake)
    signal.addEventListener('abort', abort, { once: true })
    if (signal.aborted) abort()
  })
}

/** Aborted with the given one, or when the time is over. */
function deadline(ms: Millis, signal: AbortSignal): { readonly signal: AbortSignal; clear(): void } {
  const over = new AbortController()
  const abort = (): void => over.abort(signal.reason)
  const timer = setTimeout(
    () => over.abort(new DOMException('the wait is over', 'TimeoutError')),
    Math.min(ms, MAX_TIMER_MS),
  )
  signal.addEventListener('abort', abort, { once: true })
  return {
    signal: over.signal,
    clear() {
      clearTimeout(timer)
      signal.removeEventListener('abort', abort)
    },
  }
}
