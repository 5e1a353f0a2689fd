import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { test } from 'node:test'
import { account, compilerOf, put } from '../conformance/bench.ts'
import { sqliteReader, sqliteStore } from './store.ts'

const host = { compilePolicy: compilerOf([]) }
const CHANGE = { through: 5, earliestAt: null, latestAt: null, totals: [], dropped: [] }
const NOTHING = { through: 0, revision: 0, earliestAt: null, latestAt: null, totals: [] }

test('a file of before has no totals for a reader, and room for them once it is opened to write', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-'))
  t.after(() => rmSync(folder, { recursive: true }))
  const path = join(folder, 'sluice.db')
  const first = sqliteStore({ path })
  await first.open(host)
  await first.transact('a', [], put(['account', account('a')]))
  await first.close()
  const file = new DatabaseSync(path)
  file.exec('drop table usage_account; drop table usage_total; pragma user_version = 1')
  file.close()

  const reader = sqliteReader({ path })
  await reader.open(host)
  assert.deepEqual(await reader.usage('a', []), NOTHING)
  await assert.rejects(reader.keepUsage('a', 0, CHANGE), /reading only/)
  await reader.close()

  const store = sqliteStore({ path })
  await store.open(host)
  assert.equal(await store.keepUsage('a', 0, CHANGE), true)
  assert.equal((await store.usage('a', [])).through, 5)
  assert.equal((await store.accounts({ limit: 9 })).length, 1)
  await store.close()
})
