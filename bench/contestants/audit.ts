/** A full audit, as `sluice audit` makes it, of a database that the engine filled with pairs before the first turn. */
import { openThreads } from '../../src/cli/audit/threads.ts'
import { createEngine } from '../../src/engine.ts'
import { postgresStore } from '../../src/store/postgres/store.ts'
import { perform } from '../contestant.ts'
import {
  CALLERS,
  createAccounts,
  crowdOf,
  POLICY,
  reserveRequest,
  settleRequest,
  together,
} from '../workload.ts'

/** As many threads as the command takes by itself where there are two processors. */
const JOBS = 2
const USERS = 10

await perform(async (settings) => {
  const url = String(settings.url)
  await fill(url, Number(settings.accounts), Number(settings.pairs))
  const engine = await createEngine({ store: postgresStore({ url, schema: 'require' }), sweeps: false })
  const threads = await openThreads(JOBS, { store: url, access: 'read', means: {} })
  return {
    async run() {
      const begun = performance.now()
      const cpu = process.cpuUsage()
      const report = await engine.audit({ elsewhere: threads.audit, atOnce: threads.atOnce })
      if (report.disagreements > 0) throw new Error(`${report.disagreements} disagreements`)
      const { user, system } = process.cpuUsage(cpu)
      return {
        perSecond: report.entries / ((performance.now() - begun) / 1000),
        entries: report.entries,
        micros: (user + system) / report.entries,
        rssMb: process.memoryUsage.rss() / 1e6,
      }
    },
    async close() {
      await threads.close()
      await engine.close()
    },
  }
})

async function fill(url: string, accounts: number, pairs: number): Promise<void> {
  const engine = await createEngine({ store: postgresStore({ url }), policy: POLICY, sweeps: false })
  const crowd = { ...crowdOf(accounts), users: USERS }
  await createAccounts(engine, accounts)
  let left = pairs
  await together(CALLERS, async () => {
    while (left-- > 0) {
      const request = reserveRequest(crowd)
      const { outcome, reason } = await engine.reserve(request)
      if (outcome !== 'allow') throw new Error(`refused: ${reason}`)
      await engine.settle(settleRequest(request))
    }
  })
  await engine.close()
}
