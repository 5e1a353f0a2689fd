import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { SluiceError } from '../../errors.ts'
import type { Cell, Cells, DueHolds, RequestCell } from '../../kernel/cells.ts'
import type { StoredEntry } from '../../ledger/entries.ts'
import type { Step } from '../../store.ts'
import { type Backend, type Change, CommitError, type CommitOutcome, createCoalescer } from '../coalesce.ts'

/** How the commit of these changes ends; undefined where it stands. Of unknown outcome it stands, and is told to have failed. */
type Fault = (changes: readonly Change[]) => CommitOutcome | undefined
interface Asked {
  readonly changes: readonly Change[]
  readonly resolve: () => void
  readonly reject: (error: unknown) => void
}

/**
 * A database that reads at once and whose commits stand in order: it writes one at a time, and one that fails takes with it
 * all that were asked for until it is told.
 */
function createOrdered(fault: Fault = () => undefined) {
  const cells = new Map<string, Cell>()
  const entries = new Map<string, StoredEntry>()
  let asked: Asked[] = []
  let writing = false
  let most = 0

  function store({ account, writes, entries: added, erase }: Change): void {
    for (const [key, cell] of writes) {
      if (cell === null) cells.delete(`${account}/${key}`)
      else cells.set(`${account}/${key}`, cell)
    }
    for (const entry of added) {
      assert.ok(!entries.has(`${account}/${entry.seq}`), `entry ${entry.seq} is there already`)
      entries.set(`${account}/${entry.seq}`, entry)
    }
    for (const seq of erase ?? []) {
      const entry = entries.get(`${account}/${seq}`) as StoredEntry
      entries.set(`${account}/${seq}`, { ...entry, private: null })
    }
  }
  async function write(): Promise<void> {
    writing = true
    while (asked.length > 0) {
      await new Promise((resolve) => setTimeout(resolve, 3))
      most = Math.max(most, asked.length)
      const { changes, resolve, reject } = asked.shift() as Asked
      const outcome = fault(changes)
      if (outcome === undefined || outcome === 'unknown') changes.forEach(store)
      if (outcome === undefined) resolve()
      else {
        const behind = asked
        asked = []
        reject(failure(outcome))
        for (const one of behind) one.reject(failure('passed_over'))
      }
    }
    writing = false
  }
  const failure = (outcome: CommitOutcome): CommitError =>
    new CommitError(outcome, new SluiceError('unavailable', outcome))

  const backend: Backend = {
    lanes: 4,
    overlapFrom: 1,
    inOrder: true,
    begin() {
      const changes: Change[] = []
      return {
        now: 1_000,
        reader: (account) => (key) => {
          if (key.startsWith('entry:')) return entries.get(`${account}/${key.slice(6)}`) ?? null
          if (!key.startsWith('due:')) return cells.get(`${account}/${key}`) ?? null
          const own = [...cells].filter(([place]) => place.startsWith(`${account}/request:`))
          const requests = own.map(([, found]) => found as RequestCell)
          return { requests: requests.filter((one) => one.expiresAt !== null), complete: true }
        },
        fetch: async () => {},
        stage: (change) => changes.push(change),
        commit: () =>
          new Promise<void>((resolve, reject) => {
            asked.push({ changes, resolve, reject })
            if (!writing) write()
          }),
        abandon() {},
      }
    },
  }
  const { transact } = createCoalescer(backend, {
    limits: { maxDecideMs: 1_000 },
    clocks: { wall: () => 0, monotonic: () => 0 },
    host: () => ({ compilePolicy: () => assert.fail('there is no policy') }),
  })
  return { transact, cells, mostAsked: () => most }
}

const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i + 1)
const cell = (n: number): Cell => ({ v: 1, n }) as unknown as Cell
const entry = (seq: number): StoredEntry => ({ seq, kind: 'usage', body: `${seq}`, private: 'p', hash: '' })
const numberIn = (cells: Cells): number => (cells.get('account') as { n?: number } | null)?.n ?? 0
const request = (id: string, expiresAt: number | null): Cell =>
  ({ v: 1, id, expiresAt }) as unknown as RequestCell

/** Counts up, once for each id: as every operation of Sluice does, it recognises the row that it wrote. */
const count =
  (id: number): Step<number> =>
  (cells) => {
    const known = cells.get(`request:${id}`) as { n: number } | null
    if (known !== null) return { result: known.n, writes: [], entries: [] }
    const n = numberIn(cells) + 1
    const writes = [
      { key: 'account', cell: cell(n) },
      { key: `request:${id}`, cell: { ...request(`${id}`, null), n } as unknown as Cell },
    ] as const
    return { result: n, writes, entries: [entry(n)] }
  }
const counts = (ordered: ReturnType<typeof createOrdered>, ids: readonly number[]): Promise<number>[] =>
  ids.map((id) => ordered.transact('a', ['account', `request:${id}`], count(id)))

describe('where commits stand in order, a crowded account', () => {
  it('is decided further while its last batch is on its way', async () => {
    const ordered = createOrdered()
    assert.deepEqual(await Promise.all(counts(ordered, upTo(300))), upTo(300))
    assert.ok(ordered.mostAsked() > 1, 'no batch was built on another')
  })

  it('shows what is on its way to nobody before it stands', async () => {
    const ordered = createOrdered()
    const told: string[] = []
    const written = counts(ordered, upTo(100)).map((one) => one.then((n) => told.push(`wrote ${n}`)))
    const look: Step<number> = (cells) => ({ result: numberIn(cells), writes: [], entries: [] })
    const seen = ordered.transact('a', ['account'], look).then((n) => told.push(`saw ${n}`))
    await Promise.all([...written, seen])
    const last = told.find((line) => line.startsWith('saw'))
    assert.equal(last, 'saw 100')
    assert.ok(told.indexOf('saw 100') > told.indexOf('wrote 100'))
  })

  it('is counted once and in order where a commit fails, whatever its outcome', async () => {
    for (const outcome of ['refused', 'unknown', 'unavailable'] as const) {
      let commits = 0
      const ordered = createOrdered(() => (++commits === 2 ? outcome : undefined))
      const settled = await Promise.allSettled(counts(ordered, upTo(200)))
      const numbers = settled.flatMap((one) => (one.status === 'fulfilled' ? [one.value] : []))
      assert.deepEqual(numbers, upTo(numbers.length), outcome)
      // What cannot be written now is told to its callers; what was built on it is tried for itself.
      if (outcome === 'unavailable') assert.ok(numbers.length >= 100 && numbers.length < 200)
      else assert.equal(numbers.length, 200)
      assert.deepEqual(await Promise.all(counts(ordered, [201])), [numbers.length + 1])
    }
  })

  it('loses only the operation that the database refuses', async () => {
    const bad = ({ writes }: Change): boolean => writes.has('grant:bad')
    const ordered = createOrdered((changes) => (changes.some(bad) ? 'refused' : undefined))
    const poison: Step<number> = () => ({
      result: 0,
      writes: [{ key: 'grant:bad', cell: cell(0) }],
      entries: [],
    })
    const before = counts(ordered, upTo(90))
    const between = ordered.transact('a', ['account'], poison)
    const after = counts(ordered, [...upTo(190)].slice(90))
    await assert.rejects(between)
    assert.deepEqual(await Promise.all([...before, ...after]), upTo(190))
  })

  it('sees entries, erasures, removals and open holds of batches on their way', async () => {
    const ordered = createOrdered()
    const act = (step: Step<unknown>, keys: readonly string[] = []): Promise<unknown> =>
      ordered.transact('a', ['account', ...keys] as never, step)
    const first = upTo(40).map((i) =>
      act(() => ({
        result: i,
        writes: [
          { key: 'account', cell: cell(i) },
          { key: `request:r${i}`, cell: request(`r${i}`, i) },
        ],
        entries: [entry(i)],
      })),
    )
    const filler = upTo(60).map((i) =>
      act(() => ({ result: 0, writes: [{ key: 'account', cell: cell(40 + i) }], entries: [] })),
    )
    const changing = act(() => ({
      result: 0,
      writes: [
        { key: 'request:r1', cell: null },
        { key: 'request:r2', cell: request('r2', null) },
      ],
      entries: [],
      erase: [3],
    }))
    const looking = act(
      (cells) => ({
        result: {
          removed: cells.get('request:r1'),
          erased: (cells.get('entry:3') as StoredEntry).private,
          kept: (cells.get('entry:4') as StoredEntry).private,
          due: (cells.get('due:2') as DueHolds).requests.map(({ id }) => id),
        },
        writes: [],
        entries: [],
      }),
      ['request:r1', 'entry:3', 'entry:4', 'due:2'],
    )
    assert.deepEqual(await looking, { removed: null, erased: null, kept: 'p', due: ['r3', 'r4'] })
    await Promise.all([...first, ...filler, changing])
    assert.ok(ordered.mostAsked() > 1, 'no batch was built on another')
  })
})
