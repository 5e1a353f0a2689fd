import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { SluiceError } from '../errors.ts'
import type { Cell, Key } from '../kernel/cells.ts'
import type { StoredEntry } from '../ledger/entries.ts'
import type { Step } from '../store.ts'
import {
  type Backend,
  type Change,
  CommitError,
  type CommitOutcome,
  createCoalescer,
  EMPTY_POLICY,
  type Limits,
  type Missing,
  type Session,
} from './coalesce.ts'

type Fault = (changes: readonly Change[]) => CommitOutcome | undefined

/**
 * A database as slow as one behind a network: nothing can be read that was not fetched, and every call takes a turn of
 * the event loop. It watches that no account is in two batches, and fails as it is told to.
 */
function createFake(lanes = 2) {
  const cells = new Map<string, Cell>()
  const batches: string[][] = []
  const inFlight = new Set<string>()
  let fault: Fault = () => undefined
  let gate: Promise<void> | undefined
  let open = 0
  let mostOpen = 0

  const turn = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, 1))
  const keyOf = (account: string, key: Key): string => `${account}/${key}`

  const backend: Backend = {
    lanes,
    overlapFrom: 1,
    async begin(batch) {
      for (const { account } of batch) {
        assert.ok(!inFlight.has(account), `${account} is in two batches`)
        inFlight.add(account)
      }
      open++
      mostOpen = Math.max(mostOpen, open)
      await turn()
      const fetched = new Map<string, Cell | null>()
      const fetch = (missing: readonly Missing[]): void => {
        for (const { account, key } of missing)
          fetched.set(keyOf(account, key), cells.get(keyOf(account, key)) ?? null)
      }
      const end = (): void => {
        open--
        for (const { account } of batch) inFlight.delete(account)
      }
      const staged: Change[] = []
      const session: Session = {
        now: 0,
        reader: (account) => (key) => {
          if (!key.startsWith('due:')) return fetched.get(keyOf(account, key))
          return fetched.has(keyOf(account, key)) ? { requests: [], complete: true } : undefined
        },
        async fetch(missing) {
          await turn()
          fetch(missing)
        },
        stage(change) {
          staged.push(change)
          return change.writes.size * 100
        },
        async commit() {
          await turn()
          await gate
          batches.push(staged.map((change) => change.account))
          const outcome = fault(staged)
          if (outcome === undefined || outcome === 'unknown') {
            for (const { account, writes } of staged)
              for (const [key, cell] of writes) {
                if (cell === null) cells.delete(keyOf(account, key))
                else cells.set(keyOf(account, key), cell)
              }
          }
          end()
          if (outcome !== undefined) throw new CommitError(outcome, new SluiceError('unavailable', outcome))
        },
        abandon: end,
      }
      return session
    },
  }
  return {
    backend,
    cells,
    batches,
    failWith(given: Fault) {
      fault = given
    },
    hold(given: Promise<void> | undefined) {
      gate = given
    },
    get mostOpen() {
      return mostOpen
    },
  }
}

function coalescer(fake: ReturnType<typeof createFake>, limits: Limits = {}) {
  const commits: number[] = []
  const made = createCoalescer(fake.backend, {
    limits: { maxDecideMs: 1_000, ...limits },
    clocks: { wall: () => 0, monotonic: () => 0 },
    host: () => ({
      compilePolicy: (version) => ({ ...EMPTY_POLICY, version }),
      onCommit: (operations) => commits.push(operations),
    }),
  })
  return { ...made, commits }
}

const cell = (n: number): Cell => ({ v: 1, n }) as unknown as Cell
const entry = (seq: number): StoredEntry => ({ seq, kind: 'usage', body: '{}', private: null, hash: '' })
const numberIn = (found: unknown): number => (found as { n: number } | null)?.n ?? 0
const count: Step<number> = (cells) => {
  const n = numberIn(cells.get('account')) + 1
  return { result: n, writes: [{ key: 'account', cell: cell(n) }], entries: [] }
}
const read: Step<number> = (cells) => ({ result: numberIn(cells.get('account')), writes: [], entries: [] })
const poison: Step<number> = () => ({
  result: 0,
  writes: [{ key: 'grant:poison', cell: cell(0) }],
  entries: [],
})
const upTo = (n: number): number[] => Array.from({ length: n }, (_, i) => i + 1)
const held = (): { gate: Promise<void>; open: () => void } => {
  const { promise, resolve } = Promise.withResolvers<void>()
  return { gate: promise, open: resolve }
}
const later = (ms = 20): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

describe('shared commits', () => {
  it('carry many operations each, in order inside an account', async () => {
    const fake = createFake()
    const { transact, commits } = coalescer(fake)
    const results = await Promise.all(upTo(600).map((i) => transact(`a${i % 3}`, ['account'], count)))
    assert.deepEqual(
      results,
      upTo(600).map((i) => Math.ceil(i / 3)),
    )
    assert.ok(commits.length < 12, `${commits.length} commits`)
    assert.equal(
      commits.reduce((sum, n) => sum + n, 0),
      600,
    )
  })

  it('run in as many lanes as there are, with no account in two of them', async () => {
    const fake = createFake(2)
    const { transact } = coalescer(fake, { maxBatch: 8 })
    await Promise.all(upTo(400).map((i) => transact(`a${i % 40}`, ['account'], count)))
    assert.equal(fake.mostOpen, 2)
    for (const i of upTo(39)) assert.equal(numberIn(fake.cells.get(`a${i}/account`)), 10)
  })

  it('let others overtake an account that is in flight', async () => {
    const fake = createFake(2)
    const { transact } = coalescer(fake)
    const { gate, open } = held()
    fake.hold(gate)
    const done: string[] = []
    const note = (name: string) => (): void => void done.push(name)
    const first = transact('a', ['account'], count).then(note('a1'))
    await later()
    fake.hold(undefined)
    const second = transact('a', ['account'], count).then(note('a2'))
    await transact('b', ['account'], count).then(note('b1'))
    open()
    await Promise.all([first, second])
    assert.deepEqual(done, ['b1', 'a1', 'a2'])
  })

  it('give an account that makes others wait a commit of its own', async () => {
    const fake = createFake(1)
    const { transact } = coalescer(fake, { maxBatch: 64 })
    const hot = upTo(640).map(() => transact('hot', ['account'], count))
    const cold = upTo(100).map((i) => transact(`cold-${i}`, ['account'], count))
    await Promise.all(cold)
    const served = fake.batches.filter((batch) => batch.includes('hot')).length
    assert.ok(served <= 3, `the cold ones waited for ${served} commits of the hot one`)
    for (const batch of fake.batches)
      assert.ok(batch.length === 1 || !batch.includes('hot'), 'the hot one is alone')
    await Promise.all(hot)
    assert.ok(fake.batches.length <= 14)
  })

  it('end when they have been decided for long enough', async () => {
    const fake = createFake(1)
    const { transact, commits } = coalescer(fake, { maxDecideMs: 5 })
    const slow: Step<number> = (cells, env) => {
      const until = performance.now() + 2
      while (performance.now() < until);
      return count(cells, env)
    }
    const results = await Promise.all(upTo(12).map(() => transact('a', ['account'], slow)))
    assert.deepEqual(results, upTo(12))
    assert.ok(Math.max(...commits) <= 4, `${commits}`)
  })

  it('end at their bound of bytes, also where they are run again', async () => {
    const fake = createFake(1)
    const { transact, commits } = coalescer(fake, { maxBatchBytes: 500 })
    fake.failWith((changes) => (changes.some(({ account }) => account === 'a7') ? 'refused' : undefined))
    const results = await Promise.allSettled(upTo(40).map((i) => transact(`a${i}`, ['account'], count)))
    assert.deepEqual(
      results.flatMap((one, i) => (one.status === 'rejected' ? [i + 1] : [])),
      [7],
    )
    assert.ok(Math.max(...commits) <= 6)
  })

  it('answer at once what saw nothing uncommitted, and nothing else before it is on disk', async () => {
    const fake = createFake(1)
    const { transact } = coalescer(fake)
    const { gate, open } = held()
    fake.hold(gate)
    const done: string[] = []
    const fail: Step<number> = (cells) => {
      throw new Error(`saw ${numberIn(cells.get('account'))}`)
    }
    const all = [
      transact('b', ['account'], read).then((n) => done.push(`b ${n}`)),
      transact('a', ['account'], count).then((n) => done.push(`a ${n}`)),
      transact('a', ['account'], read).then((n) => done.push(`a read ${n}`)),
      transact('a', ['account'], fail).catch((error) => done.push(error.message)),
    ]
    await later()
    assert.deepEqual(done, ['b 0'])
    open()
    await Promise.all(all)
    assert.deepEqual(done, ['b 0', 'a 1', 'a read 1', 'saw 1'])
  })

  it('need no commit where nothing is to be written', async () => {
    const fake = createFake()
    const { transact } = coalescer(fake)
    await Promise.all(upTo(20).map((i) => transact(`a${i}`, ['account'], read)))
    assert.deepEqual(fake.batches, [])
  })
})

describe('a step whose reads have to be fetched', () => {
  it('is run again with them, and those behind it wait', async () => {
    const fake = createFake()
    const { transact } = coalescer(fake)
    const asking: Step<number> = (cells, env) => {
      if (!cells.has('grant:g')) return { need: ['grant:g', 'due:5'] }
      assert.deepEqual(cells.get('due:5'), { requests: [], nextAt: null })
      return count(cells, env)
    }
    const steps = upTo(30).map((i) => transact('a', ['account'], i % 4 === 0 ? asking : count))
    assert.deepEqual(await Promise.all(steps), upTo(30))
  })

  it('gets a policy version that it asks for in the middle', async () => {
    const fake = createFake()
    fake.cells.set('@system/account', { activePolicy: 3 } as unknown as Cell)
    for (const n of [2, 3]) fake.cells.set(`@system/policy:${n}`, { text: '' } as unknown as Cell)
    const { transact } = coalescer(fake)
    const seen = await transact('a', [], (_, env) => ({
      result: [env.policy.active.version, env.policy.at(2)?.version, env.policy.at(9)?.version],
      writes: [],
      entries: [],
    }))
    assert.deepEqual(seen, [3, 2, undefined])
  })

  it('fails alone where it never has enough', async () => {
    const fake = createFake()
    const { transact } = coalescer(fake)
    let asked = 0
    const endless: Step<number> = () => ({ need: [`entry:${++asked}`] })
    const all = await Promise.allSettled([
      transact('a', ['account'], endless),
      transact('a', ['account'], count),
    ])
    assert.deepEqual(
      all.map(({ status }) => status),
      ['rejected', 'fulfilled'],
    )
    assert.ok(asked < 100)
  })
})

describe('a commit that fails', () => {
  it('for its data is split until the culprit stands alone', async () => {
    const fake = createFake()
    const { transact } = coalescer(fake)
    fake.failWith((changes) =>
      changes.some(({ writes }) => writes.has('grant:poison')) ? 'refused' : undefined,
    )
    const calls = upTo(99).map((i) =>
      transact(`a${i % 9}`, ['account'], i === 40 || i === 77 ? poison : count),
    )
    const results = await Promise.allSettled(calls)
    assert.deepEqual(
      results.flatMap((one, i) => (one.status === 'rejected' ? [i + 1] : [])),
      [40, 77],
    )
    const left = upTo(9).map((i) => numberIn(fake.cells.get(`a${i % 9}/account`)))
    assert.deepEqual(left, [11, 11, 11, 10, 10, 11, 11, 11, 11])
  })

  it('for its size while it is encoded fails alone as well', async () => {
    const fake = createFake()
    const begin = fake.backend.begin
    const { transact } = coalescer({
      ...fake,
      backend: {
        ...fake.backend,
        async begin(batch) {
          const session = await begin(batch)
          const stage = (change: Change): number => {
            if (change.writes.has('grant:poison')) throw new TypeError('unfit')
            return session.stage(change)
          }
          return { ...session, stage }
        },
      },
    })
    const results = await Promise.allSettled(
      upTo(20).map((i) => transact('a', ['account'], i === 5 ? poison : count)),
    )
    assert.deepEqual(
      results.flatMap((one, i) => (one.status === 'rejected' ? [i + 1] : [])),
      [5],
    )
    assert.equal(numberIn(fake.cells.get('a/account')), 19)
  })

  it('with an unknown outcome is run again, and finds out', async () => {
    const fake = createFake()
    const { transact } = coalescer(fake)
    // Recognises the row that it wrote, as every operation of Sluice does.
    const once: Step<string> = (cells) => {
      if (cells.get('request:r') !== null) return { result: 'replayed', writes: [], entries: [] }
      return { result: 'written', writes: [{ key: 'request:r', cell: cell(1) }], entries: [entry(1)] }
    }
    let failures = 1
    fake.failWith(() => (failures-- > 0 ? 'unknown' : undefined))
    assert.equal(await transact('a', ['request:r'], once), 'replayed')
    assert.equal(fake.batches.length, 1)
  })

  it('with an unknown outcome again and again is given up', async () => {
    const fake = createFake()
    const { transact } = coalescer(fake)
    fake.failWith(() => 'unknown')
    await assert.rejects(
      transact('a', ['account'], count),
      (error: SluiceError) => error.code === 'unavailable',
    )
  })

  it('because nothing can be written is told to its callers, and the next one is tried', async () => {
    const fake = createFake()
    const { transact } = coalescer(fake)
    fake.failWith(() => 'unavailable')
    const results = await Promise.allSettled(upTo(20).map((i) => transact(`a${i}`, ['account'], count)))
    for (const one of results) assert.equal(one.status === 'rejected' && one.reason.code, 'unavailable')
    fake.failWith(() => undefined)
    assert.equal(await transact('a1', ['account'], count), 1)
  })

  it('before it has begun is told to its callers, and the next one is tried', async () => {
    const fake = createFake()
    const { backend } = fake
    let broken = true
    const { transact } = coalescer({
      ...fake,
      backend: {
        ...backend,
        begin(batch) {
          if (broken) throw new SluiceError('unavailable', 'no connection')
          return backend.begin(batch)
        },
      },
    })
    await assert.rejects(
      transact('a', ['account'], count),
      (error: SluiceError) => error.code === 'unavailable',
    )
    broken = false
    assert.equal(await transact('a', ['account'], count), 1)
  })
})

describe('work that must not meet a batch', () => {
  it('waits for those in flight and lets no other begin', async () => {
    const fake = createFake()
    const { transact, exclusive } = coalescer(fake, { maxBatch: 4 })
    const before = upTo(40).map((i) => transact(`a${i}`, ['account'], count))
    await later(2)
    await exclusive(async () => {
      const seen = fake.batches.length
      await later()
      assert.equal(fake.batches.length, seen)
    })
    await Promise.all(before)
  })
})
