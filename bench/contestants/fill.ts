/**
 * Fills a file with accounts as the first pair of each would leave them, without making each pair: what one account's cells
 * look like is taken from the engine, and written for all under their own names.
 */
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { createEngine } from '../../src/engine.ts'
import type { AccountCell, Cell, Key } from '../../src/kernel/cells.ts'
import { createRowWriter, NEW_ACCOUNT, NEW_CELL, type Rows } from '../../src/store/sqlite/rows.ts'
import { inTransaction, SLOTS, WRITER_SETTINGS } from '../../src/store/sqlite/schema.ts'
import { sqliteStore } from '../../src/store/sqlite/store.ts'
import { perform } from '../contestant.ts'
import { accountName, createAccounts, crowdOf, POLICY, reserveRequest, settleRequest } from '../workload.ts'

const AT_ONCE = 20_000

await perform(async ({ folder, accounts }) => {
  const path = join(String(folder), 'sluice.db')
  const cells = await firstAccount(path)
  const db = new DatabaseSync(path)
  db.exec(WRITER_SETTINGS)
  db.exec('pragma synchronous = off')
  const { last } = db.prepare('select max(id) as last from account').get() as { last: number }
  const writer = createRowWriter(db)
  for (let from = 1; from < Number(accounts); from += AT_ONCE) {
    const rows: Rows = []
    const until = Math.min(from + AT_ONCE, Number(accounts))
    for (let place = from; place < until; place++) addAccount(rows, last + place, accountName(place), cells)
    inTransaction(db, () => writer.write(rows))
  }
  db.exec('pragma wal_checkpoint(truncate)')
  db.close()
  return { run: async () => ({}), close: async () => {} }
})

/** Cells of the first account, as texts with its name in them. */
async function firstAccount(path: string): Promise<readonly (readonly [Key, string])[]> {
  const store = sqliteStore({ path })
  const engine = await createEngine({ store, policy: POLICY, sweeps: false })
  await createAccounts(engine, 1)
  const request = reserveRequest(crowdOf(2))
  await engine.reserve({ ...request, account: accountName(0) })
  await engine.settle({ ...settleRequest(request), account: accountName(0) })
  const cells = await store.cells(accountName(0), '', { limit: 10 })
  await engine.close()
  return cells
    .filter(({ key }) => !key.startsWith('request:'))
    .map(({ key, cell }) => [key, JSON.stringify(key === 'account' ? withoutHolds(cell) : cell)] as const)
}

function withoutHolds(cell: Cell): AccountCell {
  return { ...(cell as AccountCell), dueAt: null }
}

function addAccount(rows: Rows, id: number, name: string, cells: readonly (readonly [Key, string])[]): void {
  rows.push(NEW_ACCOUNT, id, name)
  let slot = 1
  for (const [key, text] of cells) {
    const own = key === 'account'
    rows.push(
      NEW_CELL,
      id * SLOTS + (own ? 0 : slot++),
      id,
      own ? null : key,
      null,
      text.replace(accountName(0), name),
    )
  }
}
