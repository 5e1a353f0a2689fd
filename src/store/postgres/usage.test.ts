import assert from 'node:assert/strict'
import { test } from 'node:test'
import { Client } from 'pg'
import { testDatabase } from '../../../test/postgres.ts'
import { compilerOf, count, START } from '../conformance/bench.ts'
import { postgresStore } from './store.ts'

const host = { compilePolicy: compilerOf([]) }
const QUARTER = 900_000

async function databaseOf(t: { after(work: () => Promise<void>): void }) {
  const database = await testDatabase()
  const db = new Client({ connectionString: database.url })
  await db.connect()
  t.after(async () => {
    await db.end()
    await database.drop()
  })
  return { url: database.url, db }
}

test('a database of before is brought up to date, and keeps what it has', async (t) => {
  const { url, db } = await databaseOf(t)
  const first = postgresStore({ url })
  await first.open(host)
  await first.transact('a', ['account'], count('a'))
  await first.close()
  await db.query('drop table sluice.usage_account, sluice.usage_total')
  await db.query('delete from sluice.schema_version where version >= 2')

  const store = postgresStore({ url })
  await store.open(host)
  const change = { through: 1, earliestAt: null, latestAt: null, totals: [], dropped: [] }
  assert.equal(await store.keepUsage('a', 0, change), true)
  assert.equal((await store.usage('a', [])).through, 1)
  assert.equal(await store.transact('a', ['account'], count('a')), 2)
  await store.close()
})

test('each range is looked up in the index, also where that was planned while there were no totals', async (t) => {
  const { url, db } = await databaseOf(t)
  const store = postgresStore({ url })
  await store.open(host)
  const ranges = Array.from({ length: 100 }, (_, n) => ({
    spanMs: QUARTER,
    from: START + n * QUARTER,
    to: START + (n + 1) * QUARTER,
  }))
  await store.usage('a', ranges)
  await db.query(`insert into sluice.usage_total
    select 'a', ${QUARTER}, ${START} + ${QUARTER} * n::bigint, 'h', '{}', 1, 1, '{}', '{}', 0, 0, 1, 1 from generate_series(0, 999) n`)
  const fetched = async (): Promise<number> => {
    await db.query('select pg_stat_clear_snapshot()')
    const { rows } = await db.query(
      "select coalesce(idx_tup_read, 0)::int as n from pg_stat_user_indexes where indexrelname = 'usage_total_pkey'",
    )
    return rows[0].n
  }
  const before = await fetched()
  assert.equal((await store.usage('a', ranges)).totals.length, 100)
  // The server counts when a session ends.
  await store.close()
  let after = before
  for (let tries = 0; after === before && tries < 100; tries++) {
    await new Promise((resolve) => setTimeout(resolve, 50))
    after = await fetched()
  }
  assert.ok(after - before > 0 && after - before < 1_000, `${after - before} index entries were read`)
})
