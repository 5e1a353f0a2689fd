import { conformance } from './conformance.ts'
import { memoryStore } from './memory.ts'

conformance('the memory store', async ({ host, ...setup }) => {
  const store = memoryStore({ ...setup, strict: true })
  await store.open(host)
  return { store, close: () => store.close() }
})
