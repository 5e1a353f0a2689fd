import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { conformance } from '../conformance.ts'
import { sqliteStore } from './store.ts'

conformance('the SQLite store', async ({ host, ...setup }) => {
  const folder = mkdtempSync(join(tmpdir(), 'sluice-'))
  const start = async () => {
    const store = sqliteStore({ ...setup, path: join(folder, 'data', 'sluice.db') })
    await store.open(host)
    return store
  }
  let store = await start()
  return {
    store,
    async reopen() {
      await store.close()
      store = await start()
      return store
    },
    async close() {
      await store.close()
      rmSync(folder, { recursive: true, force: true })
    },
  }
})
