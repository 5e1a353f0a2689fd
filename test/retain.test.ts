import assert from 'node:assert/strict'
import { fork } from 'node:child_process'
import { once } from 'node:events'
import { after, before, beforeEach, describe, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { Client } from 'pg'
import { type AuditOptions, createEngine, type Disagreement, type Engine } from '../src/engine.ts'
import { SluiceError } from '../src/errors.ts'
import { memoryStore } from '../src/store/memory.ts'
import { postgresStore } from '../src/store/postgres/store.ts'
import type { Store } from '../src/store.ts'
import { DAY } from './histories.ts'
import { testDatabase } from './postgres.ts'
import { sluice, temporary } from './process.ts'

const POLICY = `
features: { job: {} }
plans:
  plus:
    guards: [{ name: budget, budget: "500", per: month, by: user }]
    waterfall:
      - { allowance: included, by: user, windows: [{ name: 7d, limit: "10", per: 7d }] }
      - credits: [plan, purchased]
      - overage: { limit: "5", per: month }
    on_shortfall: { absorb: "2", per: month }
    grants: [{ kind: plan, amount: "3", every: month, rollover: "2" }]
`
const at = (text: string): number => Date.parse(`${text}T00:00:00Z`)
const START = at('2026-01-15')
const MARCH = at('2026-03-01')

/** A PostgreSQL whose clock the test sets. */
async function world() {
  const database = await testDatabase()
  const clock = { now: START }
  const client = new Client({ connectionString: database.url })
  await client.connect()
  const makeStore = (): Store => postgresStore({ url: database.url, now: () => clock.now })
  const open = (store = makeStore()): Promise<Engine> =>
    createEngine({ store, sweeps: false, policy: POLICY })
  const engine = await open()
  return {
    ...{ database, clock, makeStore, open, engine },
    rows: async (sql: string, ...values: unknown[]) => (await client.query(sql, values)).rows,
    months: async () =>
      (
        await client.query(
          "select relname from pg_class where relname ~ '^journal_[0-9]' and relkind = 'r' order by 1",
        )
      ).rows.map(({ relname }) => relname.slice('journal_'.length)),
    close: async () => {
      await client.end()
      await engine.close()
      await database.drop()
    },
  }
}
type World = Awaited<ReturnType<typeof world>>

/** Until the requests of now are past the horizon, and of both generations that may still have them. */
async function leaveHorizon({ engine, clock }: World): Promise<void> {
  await engine.tidyUp()
  for (let generation = 0; generation < 2; generation++) {
    clock.now += 36 * DAY
    await engine.tidyUp()
  }
}

const use = async (engine: Engine, account: string, id: string, cost: string, user = 'u1') => {
  const { outcome, reason } = await engine.reserve({
    ...{ account, request_id: id, subject: { user }, feature: 'job', cost: '2' },
  })
  assert.equal(outcome, 'allow', reason)
  await engine.settle({ account, request_id: id, cost })
}

/** From January to the tenth of July: `acme` all the time, `idle` in January alone, `young` from April on, others now and then. */
async function months(world: World): Promise<void> {
  const { engine, clock } = world
  for (const id of ['acme', 'idle', 'a1', 'a2', 'a3']) await engine.createAccount({ id, plan: 'plus' })
  await engine.grant('acme', { id: 'bought', kind: 'purchased', amount: '40' })
  await engine.overrideLimits('acme', {
    reason: 'a friend',
    subject: { user: 'ann' },
    overrides: [{ name: 'included/7d', limit: '20' }],
  })
  await use(engine, 'idle', 'once', '1')
  await engine.record({
    account: 'a1',
    request_id: 'debt',
    feature: 'job',
    subject: { user: 'u9' },
    cost: '40',
  })
  for (let n = 0; clock.now < at('2026-07-10'); n++, clock.now += 5 * DAY) {
    await use(engine, 'acme', `r${n}`, '1.5', n % 3 === 0 ? 'ann' : 'u1')
    await use(engine, `a${1 + (n % 3)}`, `r${n}`, '0.5')
    if (n % 4 === 3) await engine.refund('acme', `r${n - 1}`, { refund_id: 'f', reason: 'x', amount: '0.5' })
    if (n === 16) await engine.createAccount({ id: 'young', plan: 'plus' })
    if (n > 16) await use(engine, 'young', `r${n}`, '1')
    if (n === 5) await engine.createKey({ id: 'reader', role: 'read' })
    if (n % 3 === 0) await engine.tidyUp()
  }
}

async function look(engine: Engine, options: AuditOptions = {}) {
  const found: Disagreement[] = []
  const report = await engine.audit({ ...options, onDisagreement: (one) => found.push(one) })
  return { ...report, found }
}
const clean = async (engine: Engine) => assert.deepEqual((await look(engine)).found, [])
const code = (wanted: string, says?: RegExp) => (error: unknown) => {
  assert.ok(error instanceof SluiceError, String(error))
  assert.equal(error.code, wanted, error.message)
  if (says !== undefined) assert.match(error.message, says)
  return true
}

describe('entries that are let go', { timeout: 240_000 }, () => {
  let on: World
  let firsts: Record<string, number>
  let heads: NonNullable<AuditOptions['heads']>
  let usage: unknown
  const report = () =>
    Promise.all(
      ['acme', 'idle', 'a1'].map((account) =>
        on.engine.usage(account, { from: START, to: at('2026-07-10'), bucket: 'day', group_by: ['feature'] }),
      ),
    )
  before(async () => {
    on = await world()
    await months(on)
    usage = await report()
    await clean(on.engine)
    const kept = await on.rows(
      'select account, max(seq)::int as seq from sluice.journal where recorded_at < $1 group by 1',
      MARCH,
    )
    firsts = Object.fromEntries(kept.map(({ account, seq }) => [account, seq]))
    const old = await on.rows(`select seq::int, hash from sluice.journal where account = 'acme' and seq = 4`)
    heads = { acme: old[0], idle: (await look(on.engine)).heads.idle! }
  })
  after(() => on.close())

  test('are those of whole months, behind a checkpoint of every account that has such entries', async () => {
    const cursor = (await on.engine.journal({ limit: 7 })).next
    const own = (await on.engine.entries('acme', { limit: 3 })).next
    const seen: string[] = []
    const report = await on.engine.retain(
      { before: MARCH + 12 * DAY, onAccount: ({ account }) => seen.push(account) },
      { actor: 'ops' },
    )
    assert.equal(report.before, MARCH)
    assert.deepEqual(report.months, ['2026-01', '2026-02'])
    assert.deepEqual(seen, ['a1', 'a2', 'a3', 'acme', 'idle'])
    assert.equal(report.accounts, 5)
    const left = await on.rows('select distinct account from sluice.journal where recorded_at < $1', MARCH)
    assert.deepEqual(left, [{ account: '@system' }])
    const [first] = await on.months()
    assert.equal(first, '2026_03')
    // What was followed goes on at what there is.
    const journal = await on.engine.journal({ limit: 5, cursor: cursor! })
    assert.ok(journal.items.every((entry) => entry.at >= MARCH || entry.account === '@system'))
    assert.equal(journal.items.length, 5)
    const [next] = (await on.engine.entries('acme', { limit: 1, cursor: own! })).items
    assert.equal(next?.seq, firsts.acme! + 1)
  })

  test('are still summed in reports of usage', async () => {
    assert.deepEqual(await report(), usage)
  })

  test('leave the books provable, from where they begin', async () => {
    const { found, retention, heads: now } = await look(on.engine, { heads })
    assert.deepEqual(found, [])
    assert.deepEqual(retention, { accounts: 5, before: MARCH, heads: 1 })
    assert.ok(now.acme!.seq > firsts.acme!)
    const system = (await on.engine.entries('@system', { limit: 100 })).items
    const record = system.at(-1)!
    assert.deepEqual(
      [record.actor, record.body.what, record.body.detail],
      ['ops', 'retained', { before: MARCH }],
    )
    assert.equal(system[0]!.seq, 1)
    await on.engine.refund('acme', 'r30', { refund_id: 'late', reason: 'x', amount: '0.1' })
    await use(on.engine, 'idle', 'again', '1')
    await look(on.engine, { writeCheckpoints: true })
    const again = await look(on.engine)
    assert.deepEqual([again.found, again.checkpoints.resumed, again.retention.accounts], [[], 0, 5])
    const short = await look(on.engine, { fromCheckpoints: true })
    assert.deepEqual([short.found, short.checkpoints.resumed], [[], 6])
    assert.ok(short.entries < again.entries)
  })

  test('are told of by explain, and their ids may come again', async () => {
    await assert.rejects(
      on.engine.explain('acme', 'r2'),
      code('request_unknown', /before 2026-03-01.* were let go/),
    )
    await use(on.engine, 'acme', 'r2', '1')
    assert.equal((await on.engine.explain('acme', 'r2')).charged, '1')
    await clean(on.engine)
  })

  test('go once: again, or for an earlier month, nothing is written', async () => {
    const before = await look(on.engine)
    assert.deepEqual((await on.engine.retain({ before: MARCH })).months, [])
    assert.deepEqual((await on.engine.retain({ before: at('2026-02-01') })).months, [])
    assert.deepEqual((await look(on.engine)).heads, before.heads)
  })

  test('a person who is erased afterwards is in no entry any more', async () => {
    const named = () =>
      on.rows(
        `select seq from sluice.journal where account = 'acme' and (body || coalesce(private, '')) ~ '\\mann\\M'`,
      )
    const mine = async () =>
      await on.rows(`select private from sluice.journal where account = 'acme' and private like '%"state"%'`)
    assert.ok((await named()).length > 5)
    assert.ok((await mine()).some(({ private: text }) => /user=ann/.test(text)))
    await on.engine.erase('acme', 'user', 'ann')
    assert.deepEqual(await named(), [])
    assert.equal((await mine()).length, 1, 'what stood is there still')
    await clean(on.engine)
    await use(on.engine, 'acme', 'more', '1')
    await on.engine.refund('acme', 'r32', { refund_id: 'late', reason: 'x', amount: '0.1' })
    await clean(on.engine)
    assert.equal((await on.engine.erase('acme', 'user', 'ann')).entries, 0)
    await clean(on.engine)
  })

  test('while an audit runs: it goes on from what stands now', async () => {
    const store = on.makeStore()
    const { accounts } = store
    let erased = false
    const watching: Store = {
      ...store,
      accounts: async (page) => {
        const cells = await accounts(page)
        if (!erased) {
          erased = true
          await on.engine.erase('acme', 'user', 'u1')
        }
        return cells
      },
    }
    const engine = await createEngine({ store: watching, sweeps: false })
    const { found, accounts: count } = await look(engine)
    assert.deepEqual([found, count, erased], [[], 7, true])
    await engine.close()
  })

  test('go on going: the next months take the place of the first', async () => {
    on.clock.now = at('2026-09-20')
    await leaveHorizon(on)
    const { months: gone } = await on.engine.retain({ before: at('2026-06-01') })
    assert.deepEqual(gone, ['2026-03', '2026-04', '2026-05'])
    const { found, retention } = await look(on.engine)
    assert.deepEqual([found, retention.accounts, retention.before], [[], 6, at('2026-06-01')])
    const states = await on.rows(
      `select account, count(*)::int as n from sluice.journal where private like '%"state"%' group by 1 order by 1`,
    )
    assert.deepEqual(
      states.map(({ account, n }) => [account, n]),
      [...['a1', 'a2', 'a3'].map((account) => [account, 2]), ['acme', 1], ['idle', 2], ['young', 2]],
    )
    await use(on.engine, 'young', 'later', '1')
    await clean(on.engine)
  })
})

describe('what is missing without having been let go is found', { timeout: 240_000 }, () => {
  let on: World
  let edge: number
  before(async () => {
    on = await world()
    await months(on)
    edge = Number(
      (
        await on.rows(
          `select max(seq) as seq from sluice.journal where account = 'acme' and recorded_at < $1`,
          MARCH,
        )
      )[0]!.seq,
    )
    await on.engine.retain({ before: MARCH })
    await clean(on.engine)
    await on.rows('create table kept_journal as table sluice.journal')
    await on.rows('create table kept_account as table sluice.account')
  })
  beforeEach(async () => {
    await on.rows('delete from sluice.journal')
    await on.rows('insert into sluice.journal select * from kept_journal')
    await on.rows('update sluice.account a set body = k.body from kept_account k where a.name = k.name')
  })
  after(() => on.close())

  const kinds = async () => {
    const { found } = await look(on.engine)
    return [...new Set(found.map(({ account, kind }) => `${account} ${kind}`))]
  }
  test('a line behind the edge', async () => {
    await on.rows(`delete from sluice.journal where account = 'acme' and seq = $1`, edge + 1)
    const { found } = await look(on.engine)
    assert.deepEqual([found[0]?.account, found[0]?.kind, found[0]?.seq], ['acme', 'missing', edge + 2])
  })
  test('a line that was changed after it', async () => {
    const changed =
      await on.rows(`update sluice.journal set body = replace(body, '"cost":1500000', '"cost":1400000')
      where (account, seq) in (select account, seq from sluice.journal
        where account = 'acme' and kind = 1 and body like '%"cost":1500000%' order by seq desc limit 1) returning seq`)
    assert.equal(changed.length, 1)
    assert.ok((await kinds()).includes('acme chain'))
  })
  test('what stood when the others went, changed or gone', async () => {
    await on.rows(`update sluice.journal set private = replace(private, '"grants":[["', '"grants":[["x')
      where account = 'acme' and private like '%"state"%'`)
    assert.ok((await kinds()).includes('acme checkpoint'))
    await on.rows(
      `update sluice.journal set private = null where account = 'acme' and private like '%"state"%'`,
    )
    assert.ok((await kinds()).includes('acme checkpoint'))
  })
  test('the beginning of an account that nobody let go', async () => {
    await on.rows(`delete from sluice.journal where account = 'young' and seq < 5`)
    assert.ok((await kinds()).includes('young missing'))
  })
  test('a cell that says more was let go than its journal says', async () => {
    await on.rows(`update sluice.account set body = replace(body, '"asOf":', '"asOf":1') where name = 'acme'`)
    assert.ok((await kinds()).some((one) => one.startsWith('acme ')))
  })
  test('a retention that @system has no record of', async () => {
    await on.rows(
      `update sluice.account set body = replace(body, ',"retainedBefore":${MARCH}', '') where name = '@system'`,
    )
    const found = await kinds()
    assert.ok(found.includes('@system account') && found.includes('acme account'), String(found))
  })
})

describe('entries are not let go', { timeout: 240_000 }, () => {
  let on: World
  before(async () => {
    on = await world()
    await months(on)
  })
  after(() => on.close())

  test('within the horizon of ids', () =>
    assert.rejects(on.engine.retain({ before: at('2026-07-01') }), code('invalid', /horizon/)))

  test('where a request still answers from them', async () => {
    await assert.rejects(
      on.engine.retain({ before: at('2026-06-01') }),
      code('conflict', /request r\d+ of a1 is still answered from entry \d+, recorded before 2026-06-01/),
    )
    assert.ok((await on.months()).includes('2026_01'))
    await clean(on.engine)
  })

  test('where an account disagrees, and its first disagreement is named', async () => {
    await on.rows(
      `update sluice.journal set body = replace(body, '"cost":500000', '"cost":400000') where account = 'a2'`,
    )
    await assert.rejects(
      on.engine.retain({ before: MARCH }),
      code('conflict', /^a2 has \d+ disagreements, the first: chain: /),
    )
    assert.ok((await on.months()).includes('2026_01'))
    await on.rows(
      `update sluice.journal set body = replace(body, '"cost":400000', '"cost":500000') where account = 'a2'`,
    )
    await clean(on.engine)
  })

  test('from stores that cannot, which say why', async () => {
    const memory = await createEngine({ store: memoryStore(), sweeps: false, policy: POLICY })
    await assert.rejects(memory.retain({ before: MARCH }), code('invalid', /in memory/))
    const { folder, remove } = temporary()
    try {
      const store = `sqlite:${folder}/sluice.db`
      assert.equal((await sluice(['key', 'make', 'ops', '--role', 'admin', '--store', store])).code, 0)
      const refused = await sluice(['retain', '--before', '2020-01', '--yes', '--store', store])
      assert.deepEqual([refused.code, /one table/.test(refused.stderr)], [1, true])
    } finally {
      remove()
    }
  })

  test('without --yes, nor before what is no month', async () => {
    const store = ['--store', on.database.url]
    assert.equal((await sluice(['retain', '--before', '2026-03', ...store])).code, 2)
    assert.equal((await sluice(['retain', '--before', 'spring', '--yes', ...store])).code, 2)
  })
})

describe('a retention that is interrupted', { timeout: 240_000 }, () => {
  let on: World
  before(async () => {
    on = await world()
    await months(on)
  })
  after(() => on.close())

  test('anywhere leaves the books clean, and is done to the end the next time', async () => {
    let done = false
    let stops = 0
    for (let calls = 1; !done; calls += 1 + Math.floor(calls / 6)) {
      const store = on.makeStore()
      let left = calls
      const stopping: Store = { ...store }
      for (const name of ['transact', 'lastBefore', 'snapshots', 'dropEntriesBefore'] as const) {
        const call = store[name] as (...args: unknown[]) => Promise<unknown>
        Object.assign(stopping, {
          [name]: (...args: unknown[]) => (left-- > 0 ? call(...args) : Promise.reject(new Error('killed'))),
        })
      }
      // Opening publishes nothing: the policy is there.
      const engine = await createEngine({ store: stopping, sweeps: false })
      done = await engine.retain({ before: MARCH }).then(
        () => true,
        () => false,
      )
      await engine.close()
      stops += Number(!done)
      await clean(on.engine)
    }
    assert.ok(stops > 5, String(stops))
    assert.ok(!(await on.months()).includes('2026_02'))
  })

  test('by a kill, at any time, likewise', async () => {
    const fresh = await world()
    try {
      await months(fresh)
      let kills = 0
      for (let afterMs = 5; ; afterMs += 60) {
        const child = fork(new URL('./retain.child.ts', import.meta.url), [
          ...[fresh.database.url, fresh.clock.now, MARCH].map(String),
        ])
        const ended = once(child, 'exit')
        await once(child, 'message')
        await Promise.race([pause(afterMs), ended])
        child.kill('SIGKILL')
        const [, signal] = await ended
        await clean(fresh.engine)
        if (signal === null) break
        kills += 1
      }
      assert.ok(kills > 0)
      assert.equal((await fresh.months())[0], '2026_03')
    } finally {
      await fresh.close()
    }
  })

  test('between taking a month out and dropping it', async () => {
    on.clock.now = at('2026-10-01')
    await leaveHorizon(on)
    const store = on.makeStore()
    const engine = await createEngine({
      store: { ...store, dropEntriesBefore: () => Promise.reject(new Error('killed')) },
      sweeps: false,
    })
    await assert.rejects(engine.retain({ before: at('2026-05-01') }))
    await engine.close()
    await on.rows('alter table sluice.journal detach partition sluice.journal_2026_03')
    await on.rows(`insert into sluice.journal select * from sluice.journal_2026_03 where account = '@system'`)
    await clean(on.engine)
    assert.deepEqual((await on.engine.retain({ before: at('2026-05-01') })).months, ['2026-03', '2026-04'])
    await clean(on.engine)
  })
})

test('nodes that write meanwhile, and somebody who reads for long, are refused nothing', {
  timeout: 240_000,
}, async () => {
  const on = await world()
  try {
    await months(on)
    const node = await on.open()
    const reader = new Client({ connectionString: on.database.url })
    await reader.connect()
    await reader.query('begin; select count(*) from sluice.journal')
    let working = true
    let made = 0
    const load = Promise.all(
      ['acme', 'a1', 'young', 'fresh'].map(async (account, place) => {
        if (account === 'fresh') await node.createAccount({ id: account, plan: 'plus' })
        for (let n = 0; working; n++, made++) {
          await node.record({
            account,
            request_id: `w${place}-${n}`,
            feature: 'job',
            subject: { user: 'w' },
            cost: '0.001',
          })
        }
      }),
    )
    const letGo = on.engine.retain({ before: MARCH })
    await pause(1_500)
    assert.ok((await on.months()).includes('2026_01'), 'the reader is waited for')
    await reader.query('commit')
    await reader.end()
    assert.deepEqual((await letGo).months, ['2026-01', '2026-02'])
    const during = made
    await pause(200)
    working = false
    await load
    assert.ok(during > 0 && made > during)
    await clean(on.engine)
    await node.close()
  } finally {
    await on.close()
  }
})
