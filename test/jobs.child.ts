/** A gateway of its own on an SQLite file, to be killed: `fork(…, [FILE, UPSTREAM])`. Tells its port, and how many holds an account has. */
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { createEngine } from '../src/engine.ts'
import { createGateway } from '../src/gateway/app.ts'
import { readConfig } from '../src/gateway/config.ts'
import { sqliteStore } from '../src/store/sqlite/store.ts'

const [file = '', upstream = ''] = process.argv.slice(2)
const engine = await createEngine({ store: sqliteStore({ path: file }) })
const config = readConfig(
  `upstreams: { main: { provider: openai, url: ${upstream}, key_env: KEY } }
routes: [{ upstream: main, feature: video }]
jobs: { poll: 50ms }`,
  { KEY: 'upstream-secret' },
)
const { server } = createGateway({ engine, config, onFault: (error) => console.error(error) })
server.listen(0, '127.0.0.1')
await once(server, 'listening')
process.on('message', async (account: string) => process.send?.((await engine.account(account)).open_holds))
process.send?.((server.address() as AddressInfo).port)
