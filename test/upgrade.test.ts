/** A new version takes over while the old one serves: both side by side on a schema one additive step newer, and no call fails. */
import assert from 'node:assert/strict'
import { cpSync, readdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, type TestContext, test } from 'node:test'
import { pathToFileURL } from 'node:url'
import { Client } from 'pg'
import { createEngine, type Engine } from '../src/engine.ts'
import { randomFrom } from '../src/sim/random.ts'
import { type PostgresOptions, postgresStore } from '../src/store/postgres/store.ts'
import { expectExactBooks } from './chaos/books.ts'
import { type Accounts, type Load, newAccounts, startLoad } from './chaos/load.ts'
import { type Node, startEngine } from './chaos/nodes.ts'
import { type TestDatabase, testDatabase } from './postgres.ts'
import { ROOT, temporary } from './process.ts'

const SEED = Number(process.env.SLUICE_SEED ?? Date.now() & 0x7fffffff)
const PRESENT = join(ROOT, 'src/store/postgres/migrations')
/** What a next version might add: tables in the order in which nodes write them. */
const ADDITIVE = `
  alter table cell add column note text;
  alter table journal add column note text;
  create table extra (account text collate "C" not null, at bigint not null, primary key (account, at));
  create index extra_at on extra (account, at desc);
`

describe(`a schema that changes under load (SLUICE_SEED=${SEED})`, { timeout: 300_000 }, () => {
  const fixture = temporary()
  /** The version that this checkout knows, and one more. */
  const version = Math.max(...readdirSync(PRESENT).map((name) => Number(name.slice(0, 4))))
  const folder = pathToFileURL(`${fixture.folder}/`)
  let database: TestDatabase
  let older: PostgresOptions
  let newer: PostgresOptions
  before(() => {
    cpSync(PRESENT, fixture.folder, { recursive: true })
    const name = `${String(version + 1).padStart(4, '0')}_more.sql`
    writeFileSync(new URL(name, folder), ADDITIVE)
  })
  after(() => fixture.remove())

  interface Scene {
    readonly accounts: Accounts
    readonly load: Load
    /** The nodes that calls go to now. */
    readonly nodes: (Engine & Node)[]
    readonly admin: Client
    start(options: PostgresOptions): Promise<Engine>
  }

  /** Two nodes of this version under load. All that is started ends with the test. */
  async function underLoad(t: TestContext): Promise<Scene> {
    database = await testDatabase()
    older = { url: database.url }
    newer = { url: database.url, migrating: { folder } }
    const started: Engine[] = []
    const admin = new Client({ connectionString: database.url, application_name: 'pg_dump' })
    await admin.connect()
    let load: Load | undefined
    t.after(async () => {
      await load?.stop()
      await Promise.all(started.map((engine) => engine.close()))
      await admin.end()
      await database.drop()
    })
    const start = async (options: PostgresOptions): Promise<Engine> => {
      const engine = await startEngine(options)
      started.push(engine)
      return engine
    }
    const nodes = [await start(older), await start(older)]
    const accounts = await newAccounts(nodes[0] as Node, 0)
    load = startLoad(accounts, () => nodes, randomFrom(SEED))
    await load.more(100)
    return { accounts, load, nodes, admin, start }
  }

  async function expectNothingFailed({ accounts, load, nodes, start }: Scene): Promise<void> {
    await load.stop()
    assert.deepEqual(load.failures, [])
    const reader = await start(newer)
    const random = randomFrom(SEED)
    await expectExactBooks([accounts.hot, ...accounts.others], load.told, nodes, reader, random)
    assert.equal((await reader.audit({})).disagreements, 0)
  }

  const versionOf = async ({ admin }: Scene): Promise<number> =>
    (await admin.query('select max(version) as v from sluice.schema_version')).rows[0].v

  /** As a backup does: one transaction that reads every table, for as long as it takes. */
  async function readAll({ admin }: Scene): Promise<void> {
    const { rows } = await admin.query(
      `select string_agg(format('sluice.%I', tablename), ', ') as tables from pg_tables where schemaname = 'sluice'`,
    )
    await admin.query('begin isolation level repeatable read read only')
    await admin.query(`lock table ${rows[0].tables} in access share mode`)
  }

  test('nodes of both versions serve side by side while one takes over from the other, and no call fails', async (t) => {
    const scene = await underLoad(t)
    const { load, nodes, start } = scene
    assert.equal(await versionOf(scene), version)
    nodes.push(await start(newer))
    assert.equal(await versionOf(scene), version + 1)
    await load.more(200)
    // One after the other is taken from the load, ends when it has answered, and comes back newer.
    for (let place = 0; place < 2; place++) {
      const [ending] = nodes.splice(0, 1) as [Engine]
      await ending.close()
      nodes.push(await start(newer))
      await load.more(100)
    }
    await expectNothingFailed(scene)
  })

  test('a node of the old version that starts anew says that it is too old, and those that run go on', async (t) => {
    const scene = await underLoad(t)
    const { load, start } = scene
    await start(newer)
    for (const schema of ['migrate', 'require'] as const)
      await assert.rejects(startEngine({ ...older, schema }), (error: Error) => {
        const { code, detail } = error as Error & { code: string; detail: { remedy: string } }
        assert.equal(code, 'format_newer')
        assert.equal(
          error.message,
          `the database has schema ${version + 1}, this version of Sluice knows ${version}`,
        )
        assert.match(detail.remedy, /Start the newer version .* go on/)
        return true
      })
    await load.more(100)
    await expectNothingFailed(scene)
  })

  test('behind somebody who reads for long a step is taken back and tried again, and no call waits for it in vain', async (t) => {
    const scene = await underLoad(t)
    const { load, nodes, start, admin } = scene
    await readAll(scene)
    const hasty = { ...newer, migrating: { folder, patienceMs: 1 } }
    await assert.rejects(start(hasty), (error: Error) => {
      const { code, detail } = error as Error & { code: string; detail: { remedy: string } }
      assert.equal(code, 'unavailable')
      assert.match(
        error.message,
        /could not be changed: pg_dump \(process \d+, user \w+\) has held the table \w+ for \d+ s$/,
      )
      assert.match(detail.remedy, /Nothing of this step was changed.*pg_terminate_backend\(\d+\)/)
      return true
    })
    assert.equal(await versionOf(scene), version)
    let isDone = false
    const patient = start(newer).finally(() => {
      isDone = true
    })
    // Served all the while, until a third try has come.
    const waiting = `select count(*)::int as n from pg_locks where not granted and mode = 'AccessExclusiveLock'
      and database = (select oid from pg_database where datname = current_database())`
    for (let tries = 0, before = 0; tries < 3; ) {
      const { n } = (await admin.query(waiting)).rows[0]
      if (n > before) tries++
      before = n
      await load.more(2)
    }
    assert.equal(isDone, false)
    await admin.query('commit')
    nodes.push(await patient)
    assert.equal(await versionOf(scene), version + 1)
    await load.more(100)
    await expectNothingFailed(scene)
  })

  test('nor do a new generation of request ids and a new month, which wait for another day', async (t) => {
    const scene = await underLoad(t)
    const { load, admin } = scene
    const store = postgresStore(older)
    const engine = await createEngine({ store, sweeps: false })
    t.after(() => engine.close())
    const generations = async () =>
      (await admin.query('select count(*)::int as n from sluice.generation')).rows[0].n
    await readAll(scene)
    const inAnHour = (await store.now()) + 3_600_000
    for (let n = 0; n < 3; n++) {
      await assert.rejects(store.dropRequestsBefore(inAnHour), { code: 'unavailable' })
      await load.more(50)
    }
    assert.equal(await generations(), 1)
    // A node that starts then, and finds months missing, starts all the same.
    const months = async () =>
      (await admin.query(`select count(*)::int as n from pg_tables where tablename like 'journal_2%'`))
        .rows[0].n
    const before = await months()
    const startsLater = async () => {
      const later = postgresStore({ ...older, now: () => Date.now() + 100 * 24 * 3_600_000 })
      await later.open({ compilePolicy: () => assert.fail('it decides nothing') })
      await later.close()
    }
    await startsLater()
    assert.equal(await months(), before)
    await load.more(50)
    await admin.query('commit')
    await startsLater()
    assert.equal(await months(), before + 3)
    await store.dropRequestsBefore(inAnHour)
    assert.equal(await generations(), 2)
    await load.more(100)
    await expectNothingFailed(scene)
  })
})
