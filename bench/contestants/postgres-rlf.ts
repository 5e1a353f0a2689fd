/** rate-limiter-flexible on PostgreSQL: one counter an account, one statement and one commit each. */
import { Pool } from 'pg'
import { RateLimiterPostgres } from 'rate-limiter-flexible'
import { perform } from '../contestant.ts'
import { ACCOUNTS, accountName, CALLERS, rateOf } from '../workload.ts'

/** Connections of a process: as many as the pool has by itself. */
const CONNECTIONS = 10

await perform(async ({ url }) => {
  const pool = new Pool({ connectionString: String(url), max: CONNECTIONS })
  // The server ends idle connections when the database is dropped.
  pool.on('error', () => {})
  const limiter = await new Promise<RateLimiterPostgres>((resolve, reject) => {
    const made = new RateLimiterPostgres(
      { storeClient: pool, tableName: 'counter', points: 1e9, duration: 60 },
      (error) => (error ? reject(error) : resolve(made)),
    )
  })
  const names = Array.from({ length: ACCOUNTS }, (_, place) => accountName(place))
  const consume = async (): Promise<void> => {
    await limiter.consume(names[Math.floor(Math.random() * ACCOUNTS)] as string)
  }
  return {
    run: async (seconds) => ({ perSecond: await rateOf(seconds, CALLERS, consume) }),
    close: () => pool.end(),
  }
})
