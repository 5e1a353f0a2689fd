/** The client: callers of reserve against a served Sluice, as one service's process makes them. */
import { createClient } from '../../client/index.ts'
import { perform } from '../contestant.ts'
import { ADMIN_KEY, CALLERS, crowdOf, rateOf, reserveRequest } from '../workload.ts'

await perform(async ({ port, accounts, togetherMs }) => {
  const client = createClient({
    url: `http://127.0.0.1:${port}`,
    key: ADMIN_KEY,
    deadlineMs: 30_000,
    ...(togetherMs !== undefined && { togetherMs: Number(togetherMs) }),
  })
  const crowd = crowdOf(Number(accounts))
  const reserve = async (): Promise<void> => {
    const { outcome, reason } = await client.reserve(reserveRequest(crowd))
    if (outcome !== 'allow') throw new Error(`refused: ${reason}`)
  }
  return {
    run: async (seconds) => ({ perSecond: await rateOf(seconds, CALLERS, reserve) }),
    close: async () => void (await client.close()),
  }
})
