/**
 * Pairs of reserve and settle through the whole engine on a PostgreSQL that another process shares: as many as callers get
 * through, or so many a second at fixed times.
 */
import { createEngine } from '../../src/engine.ts'
import { postgresStore } from '../../src/store/postgres/store.ts'
import { type Contestant, type Marks, perform } from '../contestant.ts'
import { latencyMarks, offer, type Pair } from '../offered.ts'
import { measurePairs } from '../pairs.ts'
import { type Crowd, createAccounts, crowdOf, POLICY, reserveRequest, settleRequest } from '../workload.ts'

/** Processes that share the database, and with it what is offered. */
const PROCESSES = 2

await perform(async ({ url, place, accounts, naive, offered, mixed }) => {
  const store = postgresStore({ url: String(url), ...(naive === true ? { limits: { maxBatch: 1 } } : {}) })
  const engine = await createEngine({ store, policy: POLICY })
  const crowd = crowdOf(Number(accounts))
  if (place === 0) await createAccounts(engine, crowd.accounts)

  function begin(whose: Crowd): Pair {
    const request = reserveRequest(whose)
    return {
      async reserve() {
        const decided = await engine.reserve(request)
        if (decided.outcome !== 'allow') throw new Error(`refused: ${decided.reason}`)
      },
      settle: async () => void (await engine.settle(settleRequest(request))),
    }
  }
  async function closedLoop(seconds: number): Promise<Marks> {
    const before = { ...engine.metrics.commits }
    const marks = await measurePairs(seconds, async () => {
      const pair = begin(crowd)
      await pair.reserve()
      await pair.settle()
    })
    const { operations, count } = engine.metrics.commits
    return { ...marks, operationsPerBatch: (operations - before.operations) / (count - before.count) }
  }
  /** The latencies are those of the many accounts, whether or not as many operations meet on one beside them. */
  async function openLoop(seconds: number): Promise<Marks> {
    const each = Number(offered) / PROCESSES
    const [latencies] = await Promise.all([
      offer(seconds, each, () => begin(crowd)),
      mixed === true ? offer(seconds, each, () => begin(crowdOf(1))) : [],
    ])
    return latencyMarks(latencies)
  }
  return {
    run: offered === undefined ? closedLoop : openLoop,
    close: () => engine.close(),
  } satisfies Contestant
})
