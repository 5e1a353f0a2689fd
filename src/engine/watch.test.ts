// What happens in an account is told: each entry once and in order, to whom it belongs, however often a reader comes back.
import assert from 'node:assert/strict'
import { getEventListeners } from 'node:events'
import { join } from 'node:path'
import { after, before, describe, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { type TestDatabase, testDatabase } from '../../test/postgres.ts'
import { tempFolder } from '../../test/server.ts'
import { createEngine, type Engine, type EngineOptions } from '../engine.ts'
import type { SluiceError } from '../errors.ts'
import { memoryStore } from '../store/memory.ts'
import { postgresStore } from '../store/postgres/store.ts'
import { sqliteStore } from '../store/sqlite/store.ts'
import type { Store } from '../store.ts'
import type * as wire from '../wire.ts'
import type { WatchOptions } from './contract.ts'

const POLICY = {
  features: { job: {} },
  plans: {
    plan: {
      waterfall: [
        { allowance: 'a', by: 'user', windows: [{ name: 'w', limit: '10', per: '5h', anchor: 'first_use' }] },
        { credits: ['free', 'purchased'] },
      ],
    },
  },
} as const
const AMY = { user: 'amy' }
const BEN = { user: 'ben' }

// The engine's own timers keep no process alive, as they should not: the test's does.
let keepAlive: NodeJS.Timeout
before(() => {
  keepAlive = setInterval(() => {}, 1_000)
})
after(() => clearInterval(keepAlive))

async function open(store: Store, options: Partial<EngineOptions> = {}): Promise<Engine> {
  const engine = await createEngine({ store, policy: POLICY, sweeps: false, ...options })
  await engine.createAccount({ id: 'a', plan: 'plan' })
  await engine.grant('a', { id: 'g', kind: 'purchased', amount: '1000000' })
  return engine
}

function reader(engine: Engine, options?: WatchOptions, bound?: wire.Subject) {
  const caller = bound === undefined ? undefined : { actor: 'k', subject: bound }
  const events = engine.watch('a', options, caller)[Symbol.asyncIterator]()
  const told: wire.AccountEvent[] = []
  async function next(): Promise<wire.AccountEvent | undefined> {
    const { value, done } = await events.next()
    if (done === true) return undefined
    told.push(value)
    return value
  }
  return {
    told,
    next,
    /** Reads on until an event of which this is true. */
    async until(isIt: (event: wire.AccountEvent) => boolean): Promise<wire.AccountEvent> {
      for (;;) {
        const event = await next()
        if (event === undefined) throw new Error('the stream has ended')
        if (isIt(event)) return event
      }
    },
    leave: () => events.return?.(),
  }
}
const is = (kind: wire.AccountEvent['event']) => (event: wire.AccountEvent) => event.event === kind
const entriesOf = (events: readonly wire.AccountEvent[]) =>
  events.filter((event) => event.event === 'entry').map(({ entry }) => entry)
const newest = async (engine: Engine) =>
  (await engine.entries('a', { limit: 1, newestFirst: true })).items[0]?.seq ?? 0
async function everything(engine: Engine): Promise<wire.EntryView[]> {
  const found: wire.EntryView[] = []
  for (let cursor: string | null | undefined; cursor !== null; ) {
    const page = await engine.entries('a', { limit: 500, ...(cursor !== undefined && { cursor }) })
    found.push(...page.items)
    cursor = page.next
  }
  return found
}
const use = (engine: Engine, id: string, subject: wire.Subject = AMY, cost = '1') =>
  engine.record({ request_id: id, account: 'a', feature: 'job', subject, cost })

const stores: Readonly<Record<string, () => { store: Store; remove(): void }>> = {
  memory: () => ({ store: memoryStore(), remove: () => {} }),
  SQLite: () => {
    const folder = tempFolder()
    return { store: sqliteStore({ path: join(folder.path, 'sluice.db') }), remove: folder.remove }
  },
}

for (const [name, make] of Object.entries(stores)) {
  describe(`an account that is watched, on ${name}`, { timeout: 120_000 }, () => {
    let engine: Engine
    let remove: () => void
    before(async () => {
      const made = make()
      remove = made.remove
      // What this process writes is heard of without looking for it.
      engine = await open(made.store, { watch: { pollEveryMs: 600_000 } })
    })
    after(async () => {
      await engine.close()
      remove()
    })

    test('is shown first; then come its entries in order, and it is shown again', async () => {
      const from = await newest(engine)
      const on = reader(engine)
      assert.deepEqual(await on.next(), { event: 'account', seq: from, account: await engine.account('a') })
      await use(engine, 'first')
      const again = await on.until(is('account'))
      const entries = entriesOf(on.told)
      assert.deepEqual(
        entries.map(({ kind, request }) => [kind, request]),
        [
          ['usage', 'first'],
          ['charge', 'first'],
        ],
      )
      assert.deepEqual(
        on.told.map(({ seq }) => seq),
        [from, from + 1, from + 2, from + 2],
      )
      assert.deepEqual(again, { event: 'account', seq: from + 2, account: await engine.account('a') })
      await on.leave()
    })

    test('is told to nobody by being looked at', async () => {
      const on = reader(engine)
      await on.next()
      await use(engine, 'second')
      await on.until(is('account'))
      const next = on.next()
      await engine.account('a', AMY)
      await pause(500)
      await use(engine, 'third')
      assert.equal((await next)?.event, 'entry')
      await on.leave()
    })

    test('is told whole and once, over many reconnections under load', async () => {
      const from = await newest(engine)
      const writers = Array.from({ length: 8 }, async (_, writer) => {
        for (let i = 0; i < 40; i++) {
          await use(engine, `w${writer}-${i}`, writer % 2 === 0 ? AMY : BEN, '0.5')
          if (i % 10 === 0) await pause(1)
        }
      })
      let isWritten = false
      const writing = Promise.all(writers).then(() => {
        isWritten = true
      })
      const told: wire.EntryView[] = []
      let seq = from
      let connections = 0
      while (!isWritten || seq < (await newest(engine))) {
        connections++
        const on = reader(engine, { after: seq, events: ['entry'] })
        for (let i = 0; i <= connections % 7 && !(isWritten && seq >= (await newest(engine))); i++) {
          const event = await on.next()
          if (event?.event === 'entry') told.push(event.entry)
          seq = event?.seq ?? seq
        }
        await on.leave()
      }
      await writing
      assert.ok(connections > 50, `${connections} connections`)
      assert.deepEqual(
        told,
        (await everything(engine)).filter((entry) => entry.seq > from),
      )
      assert.equal(engine.metrics.streams, 0)
    })
  })
}

describe('who is told what', { timeout: 60_000 }, () => {
  test('a bound reader is told of its own requests, with their charges, and of nobody else', async () => {
    const engine = await open(memoryStore())
    const all = reader(engine, { after: 0 })
    const amy = reader(engine, { after: 0, events: ['entry'] }, AMY)
    await engine.reserve({ request_id: 'amy-1', account: 'a', feature: 'job', subject: AMY, cost: '20' })
    await engine.reserve({ request_id: 'ben-1', account: 'a', feature: 'job', subject: BEN, cost: '20' })
    await engine.settle({ request_id: 'ben-1', account: 'a', cost: '15' })
    await engine.settle({ request_id: 'amy-1', account: 'a', cost: '15' })
    await use(engine, 'ben-2', BEN)
    await use(engine, 'amy-2', AMY)
    const last = await newest(engine)
    await all.until(({ event, seq }) => event === 'entry' && seq === last)
    await amy.until(({ event, seq }) => event === 'entry' && seq === last)
    const isAmys = ({ request }: wire.EntryView) => request?.startsWith('amy-') === true
    const own = entriesOf(amy.told)
    assert.deepEqual(own, entriesOf(all.told).filter(isAmys))
    assert.deepEqual([...new Set(own.map(({ kind }) => kind))].sort(), [
      'balance',
      'charge',
      'decision',
      'usage',
    ])
    assert.doesNotMatch(JSON.stringify(amy.told), /ben/)
    await engine.close()
  })

  test('what was erased is nobody’s, its charges too', async () => {
    const engine = await open(memoryStore())
    await use(engine, 'gone', AMY, '20')
    await engine.erase('a', 'user', 'amy')
    await use(engine, 'here', AMY)
    const amy = reader(engine, { after: 0, events: ['entry'] }, AMY)
    const last = await newest(engine)
    await amy.until(({ seq, event }) => event === 'entry' && seq === last)
    assert.deepEqual(
      entriesOf(amy.told).map(({ request }) => request),
      ['here', 'here'],
    )
    await engine.close()
  })

  test('a bound reader is shown the account without others’ grants, and only where that changes', async () => {
    const engine = await open(memoryStore())
    await engine.grant('a', { id: 'bens', kind: 'free', amount: '5', subjects: BEN })
    const amy = reader(engine, { subject: AMY, events: ['account'] }, AMY)
    const first = await amy.next()
    assert.doesNotMatch(JSON.stringify(first), /ben/)
    const next = amy.next()
    await engine.grant('a', { id: 'bens-2', kind: 'free', amount: '5', subjects: BEN })
    await pause(500)
    await use(engine, 'r', AMY)
    const event = await next
    assert.ok(event?.event === 'account')
    assert.equal(event.account.allowances[0]?.windows[0]?.used, '1')
    assert.doesNotMatch(JSON.stringify(event), /ben/)
    await engine.close()
  })

  test('refusals come from the log: those since the stream began, to a bound reader its own', async () => {
    const engine = await open(memoryStore(), { watch: { pollEveryMs: 10 } })
    const refuse = (id: string, subject: wire.Subject) =>
      engine.reserve({ request_id: id, account: 'a', feature: 'job', subject, cost: '2000000' })
    await refuse('before', AMY)
    await assert.doesNotReject(engine.explain('a', 'before'))
    const all = reader(engine, { events: ['refusal'] })
    const amy = reader(engine, { events: ['refusal'] }, AMY)
    const at = (await all.next())?.seq
    await amy.next()
    await refuse('ben-1', BEN)
    await refuse('amy-1', AMY)
    const event = await amy.until(is('refusal'))
    assert.ok(event.event === 'refusal')
    const { answer, ...refusal } = event.refusal
    assert.deepEqual(
      { ...refusal, at: 0, seq: event.seq },
      { at: 0, reason: 'allowance_spent', count: 1, feature: 'job', subject: AMY, seq: at },
    )
    assert.deepEqual([answer.request_id, answer.outcome], ['amy-1', 'deny'])
    const told = [await all.next(), await all.next()]
    assert.deepEqual(
      told.map((one) => one?.event === 'refusal' && one.refusal.answer.request_id),
      ['ben-1', 'amy-1'],
    )
    await engine.close()
  })
})

describe('what time alone changes', () => {
  test('is shown without an entry: a grant that expires', { timeout: 60_000 }, async () => {
    const clock = { now: Date.UTC(2026, 0, 15) }
    const engine = await open(memoryStore({ now: () => clock.now }), { watch: { lookEveryMs: 20 } })
    await engine.grant('a', { id: 'soon', kind: 'free', amount: '7', expires_at: clock.now + 60_000 })
    const on = reader(engine)
    const before = await on.next()
    const last = await newest(engine)
    const next = on.next()
    clock.now += 120_000
    const event = await next
    assert.ok(before?.event === 'account' && event?.event === 'account')
    assert.deepEqual(
      [before.account.credits.available, event.account.credits.available],
      ['1000007', '1000000'],
    )
    assert.equal(await newest(engine), last)
    await engine.close()
  })
})

describe('a stream', { timeout: 60_000 }, () => {
  const refusedAs = (code: string, path?: string) => (error: SluiceError) => {
    assert.deepEqual([error.code, error.detail.path], [code, path])
    assert.ok(error.detail.remedy)
    return true
  }

  test('is refused for an account that is not there, and after an entry that is not there', async () => {
    const engine = await open(memoryStore())
    const last = await newest(engine)
    await assert.rejects(
      async () => engine.watch('nobody')[Symbol.asyncIterator]().next(),
      refusedAs('account_unknown', '/account'),
    )
    for (const after of [last + 1, -1, 0.5, Number.NaN])
      await assert.rejects(reader(engine, { after }).next(), refusedAs('invalid', '/after'))
    assert.equal((await reader(engine, { after: last }).next())?.seq, last)
    await engine.close()
  })

  test('that nobody reads is not read ahead', async () => {
    const kept = memoryStore()
    let read = 0
    const store: Store = {
      ...kept,
      async entries(account, query) {
        const found = await kept.entries(account, query)
        read += found.length
        return found
      },
    }
    const engine = await open(store, { watch: { pollEveryMs: 5 } })
    const on = reader(engine, { after: 0 })
    await on.next()
    read = 0
    for (let i = 0; i < 1_000; i++) await use(engine, `r${i}`)
    await pause(50)
    // The polls look at the newest entry alone, and only where it is news to them.
    assert.ok(read < 1_000, `${read} entries were read`)
    const before = read
    await on.until(is('entry'))
    assert.ok(read - before < 500, `${read - before} entries were read for one`)
    await engine.close()
  })

  test('is one of a bounded number, and leaves its place', async () => {
    const engine = await open(memoryStore(), { watch: { maxStreams: 2 } })
    const [one, two] = [reader(engine), reader(engine)]
    await Promise.all([one.next(), two.next()])
    await assert.rejects(reader(engine).next(), (error: SluiceError) => error.code === 'overloaded')
    await one.leave()
    const three = reader(engine)
    assert.ok(await three.next())
    await engine.close()
    assert.equal(engine.metrics.streams, 0)
  })

  test('ends at once when its signal is aborted, when it is left, and when the engine closes', async () => {
    const engine = await open(memoryStore())
    const ending = new AbortController()
    const [aborted, left, closed] = [
      reader(engine, { signal: ending.signal }),
      reader(engine),
      reader(engine),
    ]
    const next = []
    for (const on of [aborted, left, closed]) {
      await on.next()
      next.push(on.next())
    }
    ending.abort()
    assert.equal(await next[0], undefined)
    assert.deepEqual(getEventListeners(ending.signal, 'abort'), [])
    await left.leave()
    assert.equal(await next[1], undefined)
    assert.equal(engine.metrics.streams, 1)
    await engine.close()
    assert.equal(await next[2], undefined)
    assert.equal(await closed.next(), undefined)
    assert.equal(engine.metrics.streams, 0)
    await assert.rejects(reader(engine).next(), (error: SluiceError) => error.code === 'closing')
    assert.equal(await reader(engine, { signal: AbortSignal.abort() }).next(), undefined)
  })

  test('that ended left no polls behind', async () => {
    const kept = memoryStore()
    let looks = 0
    const store: Store = {
      ...kept,
      refusals(account, query) {
        looks++
        return kept.refusals(account, query)
      },
    }
    const engine = await open(store, { watch: { pollEveryMs: 1 } })
    const on = reader(engine)
    await on.next()
    while (looks < 5) await pause(1)
    await on.leave()
    await pause(20)
    looks = 0
    await pause(100)
    assert.equal(looks, 0)
    await engine.close()
  })
})

describe('two nodes on one PostgreSQL', { timeout: 120_000 }, () => {
  let database: TestDatabase
  before(async () => {
    database = await testDatabase()
  })
  after(() => database.drop())

  test('an entry and a refusal of the other node arrive', async () => {
    const here = await open(postgresStore({ url: database.url }), { watch: { pollEveryMs: 20 } })
    const there = await createEngine({ store: postgresStore({ url: database.url }), sweeps: false })
    const on = reader(here)
    const from = (await on.next())?.seq ?? 0
    for (let i = 0; i < 20; i++) await use(there, `r${i}`)
    await there.reserve({ request_id: 'no', account: 'a', feature: 'job', cost: '2000000', subject: AMY })
    await on.until(is('refusal'))
    const last = await newest(here)
    if (on.told.at(-1)?.seq !== last) await on.until(({ seq }) => seq === last)
    assert.deepEqual(
      entriesOf(on.told),
      (await everything(there)).filter(({ seq }) => seq > from),
    )
    await Promise.all([here.close(), there.close()])
  })
})
