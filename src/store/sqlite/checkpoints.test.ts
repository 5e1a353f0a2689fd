import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, statSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { it } from 'node:test'
import { setImmediate as turn } from 'node:timers/promises'
import { watchLog } from './checkpoints.ts'
import { WRITER_SETTINGS } from './schema.ts'

const FROM_PAGES = 64
const COMMITS = 4_000
const ROWS = 8

it('moves what was committed into the file while commits go on, so that the log does not grow with them', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const path = join(folder, 'log.db')
  const db = new DatabaseSync(path)
  db.exec(`${WRITER_SETTINGS}; pragma journal_mode = wal; pragma synchronous = normal`)
  db.exec('create table line (id integer primary key, text text)')
  const write = db.prepare('insert into line (text) values (?)')
  const log = watchLog(db, path, FROM_PAGES)
  let most = 0
  for (let commit = 0; commit < COMMITS; commit++) {
    db.exec('begin')
    for (let row = 0; row < ROWS; row++) write.run('x'.repeat(1_000))
    db.exec('commit')
    log.written()
    most = Math.max(most, statSync(`${path}-wal`).size)
    if (commit % 16 === 0) await turn()
  }
  await log.close()
  assert.ok(statSync(path).size > COMMITS * ROWS * 500, 'most of it is in the file')
  // Unmoved, the log would have all of 32 MB.
  assert.ok(most < 16 * FROM_PAGES * 4096, `${most} bytes`)
  const other = new DatabaseSync(path, { readOnly: true })
  const { n } = other.prepare('select count(*) as n from line').get() as { n: number }
  other.close()
  db.close()
  assert.equal(n, COMMITS * ROWS)
})
