/** The gateway as `sluice gateway` runs it: its door, the engine, an SQLite file. */
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { createEngine, type Engine } from '../../src/engine.ts'
import { createGateway } from '../../src/gateway/app.ts'
import { readConfig } from '../../src/gateway/config.ts'
import { createLog } from '../../src/server/log.ts'
import { sqliteStore } from '../../src/store/sqlite/store.ts'

import { type Marks, perform } from '../contestant.ts'
import { control } from '../control.ts'
import { accountName, createAccounts, POLICY } from '../workload.ts'

/** Each with a key of its own. */
const ACCOUNTS = 100

await perform(async ({ folder, port, to, controlPort }) => {
  const engine = await createEngine({
    store: sqliteStore({ path: join(String(folder), 'sluice.db') }),
    policy: POLICY,
  })
  await createAccounts(engine, ACCOUNTS)
  const secrets: string[] = []
  for (let place = 0; place < ACCOUNTS; place++) {
    const account = accountName(place)
    const made = await engine.createKey({
      id: account,
      role: 'meter',
      account,
      subject: { user: 'user-0001' },
    })
    secrets.push(made.secret)
  }
  writeFileSync(join(String(folder), 'keys.json'), JSON.stringify(secrets))
  const config = readConfig(
    `upstreams: { main: { provider: openai, url: "http://127.0.0.1:${to}" } }
routes: [{ upstream: main, feature: chat }]`,
    {},
  )
  const onFault = (error: unknown): void => console.error(error)
  // Lines are made for every call and written nowhere: the disk is what the commits are measured on.
  const log = createLog('info', { write: () => {} })
  const gateway = createGateway({ engine, config, onFault, log })
  await new Promise<void>((resolve) => gateway.server.listen(Number(port), '127.0.0.1', resolve))
  const questions = await control(Number(controlPort), { books: () => booksOf(engine) })
  return {
    run: async () => ({}),
    async close() {
      questions.close()
      await gateway.close(1_000)
      await engine.close()
    },
  }
})

/** What all accounts were charged for, when nothing is held any more, and where the books disagree with themselves. */
async function booksOf(engine: Engine): Promise<Marks> {
  let holds = 1
  let outputTokens = 0
  while (holds > 0) {
    holds = 0
    for (let place = 0; place < ACCOUNTS; place++)
      holds += (await engine.account(accountName(place))).open_holds
    if (holds > 0) await sleep(20)
  }
  for (let place = 0; place < ACCOUNTS; place++)
    for (const { quantities } of await engine.usage(accountName(place), {
      from: 0,
      to: (await engine.now()) + 1,
    }))
      outputTokens += Number(quantities.output_tokens ?? 0)
  const { disagreements } = await engine.audit({})
  return { outputTokens, disagreements }
}
