/** Three nodes on one PostgreSQL are one truth: histories spread over them, and what only several nodes can break. */
import assert from 'node:assert/strict'
import { readFileSync } from 'node:fs'
import { after, before, describe, test } from 'node:test'
import { setTimeout as pause } from 'node:timers/promises'
import { Client } from 'pg'
import { type TestDatabase, testDatabase } from '../../test/postgres.ts'
import type { Engine } from '../engine/contract.ts'
import { createEngine } from '../engine.ts'
import { postgresStore } from '../store/postgres/store.ts'
import type * as wire from '../wire.ts'
import { randomFrom } from './random.ts'
import { type OpenStores, runHistory } from './run.ts'
import { spread } from './spread.ts'
import { randomHistory } from './workload.ts'

const LONG = process.env.SLUICE_LONG === '1'
const COUNT = Number(process.env.SLUICE_HISTORIES ?? (LONG ? 1_000 : 40))
const SEED = Number(process.env.SLUICE_SEED ?? (LONG ? Date.now() & 0x7fffffff : 20_261_122))

const POLICY = {
  features: { job: {} },
  plans: {
    plan: {
      waterfall: [
        { allowance: 'a', windows: [{ name: 'w', limit: '100', per: '5h' }] },
        { credits: ['purchased'] },
      ],
    },
  },
} as const

describe('three nodes on one PostgreSQL', { timeout: LONG ? 3_600_000 : 300_000 }, () => {
  let database: TestDatabase
  let client: Client
  before(async () => {
    database = await testDatabase()
    client = new Client({ connectionString: database.url })
    await client.connect()
  })
  after(async () => {
    await client.end()
    await database.drop()
  })

  async function nodes(count = 3): Promise<Engine[]> {
    await client.query('drop schema if exists sluice cascade')
    const engines: Engine[] = []
    for (let node = 0; node < count; node++)
      engines.push(
        await createEngine({ store: postgresStore({ url: database.url }), policy: POLICY, sweeps: false }),
      )
    return engines
  }

  test(`${COUNT} histories, each call to another node, agree with naive books at every step`, async (t) => {
    t.diagnostic(`SLUICE_SEED=${SEED}`)
    const open: OpenStores = async (now) => {
      await client.query('drop schema if exists sluice cascade')
      return [1, 2, 3].map(() => postgresStore({ url: database.url, now, wall: now, monotonic: now }))
    }
    for (let place = 0; place < COUNT; place++) {
      const random = randomFrom(SEED + place)
      try {
        await runHistory(randomHistory(random, random.int(5, 35)), open)
      } catch (error) {
        throw new Error(`SLUICE_HISTORIES=1 SLUICE_SEED=${SEED + place} runs it again`, { cause: error })
      }
    }
  })

  test('one request id, sent to two nodes while a third holds the account, is decided once', async () => {
    const [one, two] = (await nodes(2)) as [Engine, Engine]
    await one.createAccount({ id: 'a', plan: 'plan' })
    await client.query('begin')
    await client.query("select pg_advisory_xact_lock(hashtextextended('a', 0))")
    const request = { request_id: 'r', account: 'a', feature: 'job', cost: '60' }
    // On a busy machine one may give up before the other waits: whoever is told to retry does.
    const ask = async (engine: Engine): Promise<wire.DecisionAnswer> => {
      for (;;) {
        try {
          return await engine.reserve(request)
        } catch (error) {
          if ((error as { code?: string }).code !== 'unavailable') throw error
        }
      }
    }
    const asked = [ask(one), ask(two), ask(one), ask(two)]
    await waitersAre(2)
    await client.query('commit')
    const answers = await Promise.all(asked)
    assert.equal(answers.filter(({ replayed }) => !replayed).length, 1)
    for (const answer of answers)
      assert.deepEqual({ ...answer, replayed: false }, { ...answers[0], replayed: false })
    const view = await two.account('a')
    assert.deepEqual([view.open_holds, view.allowances[0]?.windows[0]?.held], [1, '60'])
    await closeAll([one, two])
  })

  test('a caller who waits longer for an account than a lock may take is told, and nothing is held', async () => {
    const [one, two] = (await nodes(2)) as [Engine, Engine]
    await one.createAccount({ id: 'a', plan: 'plan' })
    await one.createAccount({ id: 'b', plan: 'plan' })
    await client.query('begin')
    await client.query("select pg_advisory_xact_lock(hashtextextended('a', 0))")
    try {
      const request = { request_id: 'r', account: 'a', feature: 'job', cost: '60' }
      const late = assert.rejects(one.reserve(request), { code: 'unavailable' })
      // Others do not suffer by it, also those that share its batches.
      const others = [one, two].map((engine, n) =>
        engine.reserve({ ...request, request_id: `o${n}`, account: 'b', cost: '1' }),
      )
      for (const { outcome } of await Promise.all(others)) assert.equal(outcome, 'allow')
      await pause(100)
      const beside = await one.reserve({ ...request, account: 'b', cost: '1' })
      assert.equal(beside.outcome, 'allow')
      await late
    } finally {
      // Else whatever comes after would wait for it too.
      await client.query('commit')
    }
    assert.equal((await two.account('a')).open_holds, 0)
    await closeAll([one, two])
  })

  test('whoever follows the journal while three nodes write misses nothing, and sees each account in order', async () => {
    const engines = await nodes()
    const engine = spread(engines)
    const accounts = ['a', 'b', 'c', 'd']
    for (const id of accounts) await engine.createAccount({ id, plan: 'plan' })
    let writing = true
    const work = Promise.all(
      Array.from({ length: 400 }, async (_, n) => {
        const of = { request_id: `r${n}`, account: accounts[n % 4] as string }
        await engine.reserve({ ...of, feature: 'job', cost: '0.1' })
        await engine.settle({ ...of, cost: '0.1' })
      }),
    ).finally(() => {
      writing = false
    })
    const seen: wire.EntryView[] = []
    let cursor: string | undefined
    const follow = async (): Promise<boolean> => {
      const page = await engine.journal({ limit: 100, ...(cursor === undefined ? {} : { cursor }) })
      seen.push(...page.items)
      const last = page.items.at(-1)
      if (page.next !== null) cursor = page.next
      return page.next !== null && last !== undefined
    }
    while (writing) if (!(await follow())) await pause(1)
    await work
    // The last page has no successor: it is read again until the end, from the same place.
    const before = seen.length
    seen.length = before
    while (await follow());
    const numbers = new Map<string, number[]>()
    for (const { account, seq } of unique(seen)) {
      const own = numbers.get(account)
      if (own === undefined) numbers.set(account, [seq])
      else own.push(seq)
    }
    for (const id of accounts) {
      const own = numbers.get(id) ?? []
      const { items } = await engine.entries(id, { newestFirst: true, limit: 1 })
      assert.deepEqual(
        own,
        Array.from({ length: items[0]?.seq ?? 0 }, (_, n) => n + 1),
        id,
      )
    }
    assert.equal((await engine.audit({})).disagreements, 0)
    await closeAll(engines)
  })

  test('holds that end are swept by whichever node comes first, once', async () => {
    let at = 1_800_000_000_000
    await client.query('drop schema if exists sluice cascade')
    const now = () => at
    const engines: Engine[] = []
    for (let node = 0; node < 3; node++) {
      const store = postgresStore({ url: database.url, now, wall: now, monotonic: now })
      engines.push(await createEngine({ store, policy: POLICY, sweeps: false }))
    }
    const engine = spread(engines)
    for (let n = 0; n < 20; n++) {
      await engine.createAccount({ id: `a${n}`, plan: 'plan' })
      for (let m = 0; m < 3; m++)
        await engine.reserve({
          request_id: `r${m}`,
          account: `a${n}`,
          feature: 'job',
          cost: '10',
          ttl_ms: 1_000 * (m + 1),
        })
    }
    at += 60_000
    await Promise.all(engines.map((one) => one.sweep()))
    for (let n = 0; n < 20; n++) {
      const closed = await engine.entries(`a${n}`, { kinds: ['change'], limit: 50 })
      assert.equal(closed.items.filter(({ body }) => body.what === 'hold_closed').length, 3)
    }
    const { rows } = await client.query('select count(*)::int as n from sluice.hold')
    assert.deepEqual(rows, [{ n: 0 }])
    await closeAll(engines)
  })

  test('a transaction that stays open holds back who follows the journal, but only in its own database', async () => {
    const [engine] = (await nodes(1)) as [Engine]
    const elsewhere = await testDatabase()
    const other = new Client({ connectionString: elsewhere.url })
    await other.connect()
    const known = async () =>
      new Set((await engine.journal({ limit: 100 })).items.map(({ account }) => account))
    const open = async (in_: Client) => {
      await in_.query('begin')
      await in_.query('select pg_current_xact_id()')
    }
    await open(other)
    await engine.createAccount({ id: 'a', plan: 'plan' })
    assert.ok((await known()).has('a'))
    await open(client)
    await engine.createAccount({ id: 'b', plan: 'plan' })
    assert.ok(!(await known()).has('b'))
    await client.query('commit')
    assert.ok((await known()).has('b'))
    await other.end()
    await elsewhere.drop()
    await engine.close()
  })

  test('what a finance person asks the tables adds up to what the accounts say', async () => {
    const [engine] = (await nodes(1)) as [Engine]
    await engine.createAccount({ id: 'a', plan: 'plan' })
    await engine.grant('a', { id: 'g', kind: 'purchased', amount: '50' })
    for (const [n, cost] of ['70', '40.5', '0.000001'].entries()) {
      const of = { request_id: `r${n}`, account: 'a' }
      await engine.reserve({ ...of, feature: 'job', cost, subject: { user: 'u' } })
      await engine.settle({ ...of, cost })
    }
    await engine.refund('a', 'r1', { refund_id: 'f', amount: '10', reason: 'slow' })
    const ask = async (sql: string) =>
      ((await client.query(`set search_path to sluice; ${sql}`)) as never as { rows: object[] }[])[1]?.rows
    assert.deepEqual(await ask("select sum(cost)::text as cost from charge where account = 'a'"), [
      { cost: '100.500001' },
    ])
    assert.deepEqual(
      await ask(
        `select debited, sum(amount)::float8 as amount from balance where reason = 'charge' group by debited`,
      ),
      [{ debited: 'grant:g', amount: 10.500001 }],
    )
    assert.deepEqual(
      await ask(
        `select outcome, count(*)::int as n, min(subject ->> 'user') as who from decision group by outcome`,
      ),
      [{ outcome: 'allow', n: 3, who: 'u' }],
    )
    assert.deepEqual(await ask(`select distinct feature, op from usage`), [{ feature: 'job', op: 'settle' }])
    assert.deepEqual(await ask(`select what from change where account = 'a' order by seq limit 2`), [
      { what: 'account_created' },
      { what: 'grant' },
    ])
    const [row] = (await ask(
      'select (extract(epoch from at) * 1000)::int8::text as at from usage order by seq limit 1',
    )) as [{ at: string }]
    const { items } = await engine.entries('a', { kinds: ['usage'], limit: 1 })
    assert.equal(Number(row.at), items[0]?.at)
    await engine.close()
  })

  test('the views have the columns that their page tells', async () => {
    await closeAll(await nodes(1))
    const page = readFileSync(new URL('../../docs/reference/tables.md', import.meta.url), 'utf8')
    const { rows } = await client.query(`
      select table_name as view, array_agg(column_name::text order by ordinal_position) as columns
      from information_schema.columns
      where table_schema = 'sluice' and table_name in (select viewname from pg_views) group by table_name`)
    const common = ['account', 'seq', 'at', 'recorded_at', 'recorded_ms', 'actor', 'hash']
    assert.equal(rows.length, 5)
    for (const { view, columns } of rows) {
      const line = page.split('\n').find((one) => one.startsWith(`| \`${view}\` |`))
      const told = [...(line ?? '').matchAll(/`(\w+)`/g)].map(([, name]) => name).slice(1)
      assert.deepEqual(
        told,
        columns.filter((name: string) => !common.includes(name)),
        view,
      )
    }
  })

  async function waitersAre(count: number): Promise<void> {
    for (;;) {
      const { rows } = await client.query(
        `select count(*)::int as n from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'`,
      )
      if (rows[0].n === count) return
      await pause(5)
    }
  }
})

const closeAll = (engines: readonly Engine[]) => Promise.all(engines.map((engine) => engine.close()))

function unique(entries: readonly wire.EntryView[]): wire.EntryView[] {
  return [...new Map(entries.map((entry) => [entry.id, entry])).values()]
}
