/** Lets old entries go by a clock that the test sets, until it is done or killed. */
import { createEngine } from '../src/engine.ts'
import { postgresStore } from '../src/store/postgres/store.ts'

const [url = '', now, before] = process.argv.slice(2)
const store = postgresStore({ url, now: () => Number(now) })
const engine = await createEngine({ store, sweeps: false })
process.send?.('begins')
await engine.retain({ before: Number(before) })
await engine.close()
process.disconnect?.()
