import { testDatabase } from '../../../test/postgres.ts'
import { conformance } from '../conformance.ts'
import { postgresStore } from './store.ts'

conformance('the PostgreSQL store', async ({ host, ...setup }) => {
  const database = await testDatabase()
  const start = async () => {
    const store = postgresStore({ ...setup, url: database.url })
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
      await database.drop()
    },
  }
})
