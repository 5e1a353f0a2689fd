/** Pairs of reserve and settle through the whole engine on an SQLite file, each answered when it is on disk. */
import { join } from 'node:path'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { createEngine } from '../../src/engine.ts'
import { sqliteStore } from '../../src/store/sqlite/store.ts'
import { perform } from '../contestant.ts'
import { measurePairs } from '../pairs.ts'
import { createAccounts, crowdOf, POLICY, reserveRequest, settleRequest } from '../workload.ts'

/** Samples of the event loop are this far apart; the figure includes it. */
const RESOLUTION_MS = 1

await perform(async ({ folder, accounts, naive, existing }) => {
  const store = sqliteStore({
    path: join(String(folder), 'sluice.db'),
    ...(naive === true ? { limits: { maxBatch: 1 }, maxJoined: 1 } : {}),
  })
  const engine = await createEngine({ store, policy: POLICY })
  const crowd = crowdOf(Number(accounts))
  if (existing !== true) await createAccounts(engine, crowd.accounts)

  async function pair(): Promise<void> {
    const request = reserveRequest(crowd)
    const decided = await engine.reserve(request)
    if (decided.outcome !== 'allow') throw new Error(`refused: ${decided.reason}`)
    await engine.settle(settleRequest(request))
  }
  return {
    async run(seconds) {
      const delay = monitorEventLoopDelay({ resolution: RESOLUTION_MS })
      const before = { ...engine.metrics.commits }
      delay.enable()
      const marks = await measurePairs(seconds, pair)
      delay.disable()
      const { operations, count } = engine.metrics.commits
      return {
        ...marks,
        delayP99Ms: delay.percentile(99) / 1e6,
        operationsPerBatch: (operations - before.operations) / (count - before.count),
      }
    },
    close: () => engine.close(),
  }
})
