/** Sluice over HTTP, as `sluice serve` runs it: the app, the engine, an SQLite file. */
import { join } from 'node:path'
import { createEngine } from '../../src/engine.ts'
import { createApp } from '../../src/server/app.ts'
import { createLog } from '../../src/server/log.ts'
import { serve } from '../../src/server/serve.ts'
import { sqliteStore } from '../../src/store/sqlite/store.ts'
import { perform } from '../contestant.ts'
import { ADMIN_KEY, createAccounts, POLICY } from '../workload.ts'

await perform(async ({ folder, accounts, port }) => {
  const engine = await createEngine({
    store: sqliteStore({ path: join(String(folder), 'sluice.db') }),
    policy: POLICY,
  })
  await createAccounts(engine, Number(accounts))
  // Lines are made for every request and written nowhere: the disk is what the commits are measured on.
  const log = createLog('info', { write: () => {} })
  const app = createApp({ engine, adminKey: ADMIN_KEY, log })
  const served = await serve(app, engine, { port: Number(port) })
  return { run: async () => ({}), close: () => served.close() }
})
