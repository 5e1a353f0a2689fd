/** rate-limiter-flexible in memory, for scale: one counter an account, nothing durable, nothing explained. */
import { RateLimiterMemory } from 'rate-limiter-flexible'
import { perform } from '../contestant.ts'
import { ACCOUNTS, accountName, CALLERS, rateOf } from '../workload.ts'

await perform(async () => {
  const limiter = new RateLimiterMemory({ points: 1e9, duration: 60 })
  const names = Array.from({ length: ACCOUNTS }, (_, place) => accountName(place))
  const consume = async (): Promise<void> => {
    await limiter.consume(names[Math.floor(Math.random() * ACCOUNTS)] as string)
  }
  return {
    run: async (seconds) => ({ perSecond: await rateOf(seconds, CALLERS, consume) }),
    close: async () => {},
  }
})
