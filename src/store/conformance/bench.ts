import { SluiceError } from '../../errors.ts'
import type { AccountCell, Cell, Cells, Key, RequestCell } from '../../kernel/cells.ts'
import type { Policy } from '../../kernel/plan.ts'
import type { EntryKind, StoredEntry } from '../../ledger/entries.ts'
import type { Env, Step, Store, StoreHost, Write } from '../../store.ts'
import type { Millis } from '../../units.ts'

/** What the suite decides about a store that is to be opened. */
export interface Setup {
  readonly now: () => Millis
  readonly wall: () => Millis
  readonly monotonic: () => number
  readonly limits: { readonly maxQueued?: number }
  readonly host: StoreHost
}
/** An opened store over an empty place of its own. */
export interface Fixture {
  readonly store: Store
  /** Closes it and opens another over the same place. Absent where nothing outlives a store. */
  readonly reopen?: () => Promise<Store>
  /** Clears up after the test, whatever has been closed already. */
  readonly close: () => Promise<void>
}
export type OpenFixture = (setup: Setup) => Promise<Fixture>

export const START: Millis = 1_700_000_000_000
export const HOUR = 3_600_000

export interface Place extends Fixture {
  clock: { now: Millis; wall: Millis; monotonic: number }
  readonly compiled: number[]
}
export interface Bench {
  place(limits?: Setup['limits']): Promise<Place>
  clear(): Promise<void>
}

export function createBench(open: OpenFixture): Bench {
  const fixtures: Fixture[] = []
  return {
    async place(limits = {}) {
      const clock = { now: START, wall: START, monotonic: 0 }
      const compiled: number[] = []
      const fixture = await open({
        now: () => clock.now,
        wall: () => clock.wall,
        monotonic: () => clock.monotonic,
        limits,
        host: { compilePolicy: compilerOf(compiled) },
      })
      fixtures.push(fixture)
      return { ...fixture, clock, compiled }
    },
    async clear() {
      for (const fixture of fixtures) await fixture.close()
    },
  }
}

export function compilerOf(compiled: number[]) {
  return (version: number, text: string): Policy => {
    if (text === 'broken') throw new SluiceError('policy_invalid', 'broken')
    compiled.push(version)
    return { version, features: new Map(), plans: new Map(), defaultPlan: text, usageDimensions: [] }
  }
}

// Steps and cells as small as they can be: a store looks into nothing but the indexed fields.

export interface Counting {
  readonly id: string
  readonly n: number
  readonly dueAt: Millis | null
}
export const counting = (cells: Cells): Counting => cells.get('account') as unknown as Counting
export const account = (id: string, n = 0, dueAt: Millis | null = null): Cell =>
  ({ v: 1, id, n, dueAt, text: 'naïve 🙂' }) as unknown as AccountCell

export function request(id: string, expiresAt: Millis | null, createdAt: Millis = START): RequestCell {
  const state = expiresAt === null ? 'settled' : 'open'
  return { v: 1, id, state, createdAt, expiresAt } as unknown as RequestCell
}

export function entry(seq: number, kind: EntryKind = 'usage', part: string | null = null): StoredEntry {
  return { seq, kind, body: `{"seq":${seq},"text":"naïve 🙂"}`, private: part, hash: `hash-${seq}` }
}

export const put = (...writes: readonly [Key, Cell | null][]): Step<null> => {
  return () => ({ result: null, writes: writes.map(([key, cell]) => ({ key, cell })), entries: [] })
}
export const writeRequests = (...requests: RequestCell[]): Step<null> =>
  put(...requests.map((cell): [Key, Cell] => [`request:${cell.id}`, cell]))

/** Counts its account up and books one entry of that number. */
export function count(id: string, ...more: Write[]): Step<number> {
  return (cells) => {
    const n = (counting(cells)?.n ?? 0) + 1
    return { result: n, writes: [{ key: 'account', cell: account(id, n) }, ...more], entries: [entry(n)] }
  }
}
export const look = <T>(seen: (cells: Cells, env: Env) => T): Step<T> => {
  return (cells, env) => ({ result: seen(cells, env), writes: [], entries: [] })
}
export const readN = (store: Store, id: string): Promise<number | undefined> =>
  store.transact(
    id,
    ['account'],
    look((cells) => counting(cells)?.n),
  )

export const failsWith = (code: string) => (error: unknown) =>
  error instanceof SluiceError && error.code === code
export const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i + 1)
