/** `sluice audit` over totals of usage that were damaged where they are kept. */
import assert from 'node:assert/strict'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { describe, type TestContext, test } from 'node:test'
import { Client } from 'pg'
import { type AuditOptions, createEngine, type Engine } from '../src/engine.ts'
import { postgresStore } from '../src/store/postgres/store.ts'
import { sqliteStore } from '../src/store/sqlite/store.ts'
import type { Store } from '../src/store.ts'
import { testDatabase } from './postgres.ts'
import { temporary } from './process.ts'

const POLICY = `
usage: { dimensions: [subject.user] }
features: { job: {} }
plans:
  plus:
    waterfall: [{ overage: { limit: "1000000", per: month } }]
`
const HOUR = 3_600_000
const START = Date.UTC(2026, 0, 15, 12)

/** An engine on a clock of the test's, whose tables can be changed behind its back. */
interface Place {
  readonly store: Store
  readonly change: (sql: string) => Promise<number>
  readonly remove: () => unknown
}

const PLACES: Readonly<Record<string, (now: () => number) => Promise<Place>>> = {
  async SQLite(now) {
    const { folder, remove } = temporary()
    const path = join(folder, 'sluice.db')
    return {
      store: sqliteStore({ path, now }),
      async change(sql) {
        const db = new DatabaseSync(path)
        try {
          return Number(db.prepare(sql).run().changes)
        } finally {
          db.close()
        }
      },
      remove,
    }
  },
  async PostgreSQL(now) {
    const { url, drop } = await testDatabase()
    return {
      store: postgresStore({ url, now }),
      async change(sql) {
        const client = new Client({ connectionString: url, options: '-c search_path=sluice' })
        await client.connect()
        try {
          return (await client.query(sql)).rowCount ?? 0
        } finally {
          await client.end()
        }
      },
      remove: drop,
    }
  },
}

async function opened(t: TestContext, open: (now: () => number) => Promise<Place>) {
  const clock = { now: START }
  const place = await open(() => clock.now)
  t.after(() => place.remove())
  const engine = await createEngine({ store: place.store, policy: POLICY, sweeps: false })
  t.after(() => engine.close())
  await filled(engine, clock)
  return { engine, clock, change: place.change }
}

async function audited(engine: Engine, options: AuditOptions = {}): Promise<string[]> {
  const told: string[] = []
  await engine.audit({
    ...options,
    onDisagreement: ({ account, kind, message, amount = '' }) =>
      told.push(`${account} ${kind} ${message} ${amount}`.trim()),
  })
  return told
}

/** Two accounts, one of them larger than those that are read together; uses of two people in four hours. */
async function filled(engine: Engine, clock: { now: number }): Promise<void> {
  for (const [id, uses] of [
    ['large', 400],
    ['small', 20],
  ] as const) {
    await engine.createAccount({ id, plan: 'plus' })
    clock.now = Math.max(clock.now, START)
    for (let n = 0; n < uses; n++) {
      if (n % (uses / 4) === 0) clock.now += HOUR
      const at = n % 10 === 9 ? { at: clock.now - 2 * HOUR } : {}
      const use = { account: id, request_id: `r${n}`, feature: 'job', cost: '2', ...at }
      await engine.record({ ...use, subject: { user: n % 2 === 0 ? 'ann' : 'bob' } })
    }
    await engine.refund(id, 'r0', { refund_id: 'f', amount: '1', reason: 'kind' })
    // An erasure of nobody who is open counts all that there is.
    await engine.record({
      account: id,
      request_id: 'eve',
      feature: 'job',
      cost: '1',
      subject: { user: 'eve' },
    })
    await engine.erase(id, 'user', 'eve')
  }
}

for (const [name, open] of Object.entries(PLACES)) {
  describe(`an audit of totals of usage on ${name}`, () => {
    test('names the total that its entries do not add up to, and nothing once it is put right', async (t) => {
      const { engine, change } = await opened(t, open)
      assert.deepEqual(await audited(engine), [])
      for (const account of ['large', 'small']) {
        const id = name === 'SQLite' ? `(select id from account where name = '${account}')` : `'${account}'`
        const of = `account = ${id} and dimensions like '%"ann"%'`
        const first = `(select min(start_at) from usage_total where ${of} and span_ms = 900000)`
        const raised = `where ${of} and start_at = ${first} and span_ms = 900000`
        assert.equal(await change(`update usage_total set charged = charged + 5000000 ${raised}`), 1)
        const told = await audited(engine)
        assert.equal(told.length, 3, told.join('\n'))
        for (const one of told)
          assert.match(one, new RegExp(`^${account} usage .*"subject.user":"ann".* -?5$`))
        assert.match(
          told.join('\n'),
          /the total of the quarter hour from 2026-01-1\dT\d\d:00:00Z in the group .* is not what its entries add up to: charged \S+ and not \S+ 5$/m,
        )
        assert.equal(await change(`update usage_total set charged = charged - 5000000 ${raised}`), 1)
        assert.deepEqual(await audited(engine), [])
      }
    })

    test('finds totals that are gone, stand elsewhere than they say, or cannot be read', async (t) => {
      const { engine, change } = await opened(t, open)
      const tables = ['usage_account', 'usage_total'] as const
      for (const table of tables) await change(`create table kept_${table} as select * from ${table}`)
      const damages: readonly (readonly [string, RegExp])[] = [
        [
          `delete from usage_total where span_ms = 900000`,
          /no total of the quarter hour|no total of the six hours|the total of the hour/,
        ],
        [`delete from usage_total`, /no total of the quarter hour/],
        [
          `update usage_account set through = through + 1000`,
          /stand up to entry \d+, and the journal ends at entry/,
        ],
        [
          `update usage_account set through = 1`,
          /its entries say nothing of it|is not what its entries add up to/,
        ],
        [`update usage_account set earliest_at = earliest_at + 21600000`, /outside of the times/],
        [`update usage_total set quantities = '{"units":"many"}'`, /cannot be compared/],
        [`update usage_total set sources = 'none'`, /cannot be compared/],
      ]
      for (const [damage, says] of damages) {
        assert.ok((await change(damage)) > 0, damage)
        const told = await audited(engine)
        assert.ok(
          told.some((one) => says.test(one)),
          `${damage}: ${told.join('\n').slice(0, 2_000)}`,
        )
        for (const one of told) assert.match(one, / usage /)
        for (const table of tables) {
          await change(`delete from ${table}`)
          await change(`insert into ${table} select * from kept_${table}`)
        }
        assert.deepEqual(await audited(engine), [], damage)
      }
    })

    test('accuses nobody while accounts are used, counted and people forgotten', async (t) => {
      const { engine } = await opened(t, open)
      let ended = false
      let done = 0
      async function busy(): Promise<void> {
        for (let n = 0; !ended; n++) {
          const use = { account: 'large', request_id: `b${n}`, feature: 'job', cost: '1' }
          await engine.record({ ...use, subject: { user: `u${n % 3}` } })
          done += 1
          if (n % 7 === 0) await engine.erase('large', 'user', `u${n % 3}`)
        }
      }
      const work = busy()
      try {
        for (let n = 0; n < 20; n++) assert.deepEqual(await audited(engine, { accounts: ['large'] }), [])
      } finally {
        ended = true
        await work
      }
      assert.ok(done > 0)
    })
  })
}

test('where entries were let go, totals of longer times are still held against their quarter hours', async (t) => {
  const { engine, change, clock } = await opened(t, PLACES.PostgreSQL as (typeof PLACES)[string])
  clock.now = Date.UTC(2026, 4, 2)
  await engine.record({ account: 'large', request_id: 'now', feature: 'job', cost: '1' })
  await engine.sweep()
  await engine.tidyUp()
  clock.now += 40 * 24 * HOUR
  await engine.tidyUp()
  const { months } = await engine.retain({ before: Date.UTC(2026, 3, 1) })
  assert.equal(months[0], '2026-01')
  assert.deepEqual(await audited(engine), [])
  const raise = (by: number) =>
    change(
      `update usage_total set requests = requests + ${by} where account = 'large' and span_ms = 900000 and start_at < ${Date.UTC(2026, 3, 1)}`,
    )
  assert.ok((await raise(1)) > 1)
  const told = await audited(engine)
  for (const one of told)
    assert.match(
      one,
      /^large usage the total of the (six hours|hour) .* not what those of its quarter hours add up to/,
    )
  assert.ok(told.length > 1)
  await raise(-1)
  assert.deepEqual(await audited(engine), [])
})
