import assert from 'node:assert/strict'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { it } from 'node:test'
import { type CommitError, EMPTY_POLICY } from '../coalesce.ts'
import { NEW_ACCOUNT, type Rows } from './rows.ts'
import { sqliteStore } from './store.ts'
import { startWriter } from './writer.ts'

const account = (id: number): Rows => [NEW_ACCOUNT, id, `account-${id}`]

it('tells of a commit that fails when all behind it have been passed over, and takes what comes then', async (t) => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-'))
  t.after(() => rmSync(folder, { recursive: true, force: true }))
  const path = join(folder, 'sluice.db')
  const store = sqliteStore({ path })
  await store.open({ compilePolicy: (version) => ({ ...EMPTY_POLICY, version }) })
  await store.close()
  for (const maxJoined of [1, Number.POSITIVE_INFINITY]) {
    const from = maxJoined === 1 ? 100 : 200
    const writer = await startWriter({ path, maxRefusals: 10, maxPages: undefined, maxJoined })
    const told: string[] = []
    const commit = (id: number): Promise<void> =>
      writer.commit(account(id)).then(
        () => void told.push(`${id - from} stands`),
        (error: CommitError) => void told.push(`${id - from} ${error.outcome}`),
      )
    await commit(from)
    const asked = [from + 1, from, from + 2, from + 3].map(commit)
    await asked[1]
    const atOnce = [...told]
    await Promise.all(asked)
    assert.deepEqual(told, atOnce, 'nobody is told later than the first')
    assert.deepEqual(told, ['0 stands', '1 stands', '0 refused', '2 passed_over', '3 passed_over'])
    await commit(from + 2)
    assert.equal(told.at(-1), '2 stands')
    await writer.close()
    const db = new DatabaseSync(path, { readOnly: true })
    const ids = db
      .prepare('select id from account where id between ? and ? order by id')
      .all(from, from + 9) as unknown as { id: number }[]
    db.close()
    assert.deepEqual(
      ids.map(({ id }) => id - from),
      [0, 1, 2],
    )
  }
})
