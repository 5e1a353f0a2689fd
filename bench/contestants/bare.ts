/** A bare Fastify route with the bodies of a reserve: it reads the one, answers the other, and does nothing between. */
import Fastify from 'fastify'
import { createEngine } from '../../src/engine.ts'
import { memoryStore } from '../../src/store/memory.ts'
import type { ReserveRequest } from '../../src/wire.ts'
import { perform } from '../contestant.ts'
import { createAccounts, crowdOf, POLICY, reserveRequest } from '../workload.ts'

await perform(async ({ port }) => {
  const engine = await createEngine({ store: memoryStore(), policy: POLICY, sweeps: false })
  await createAccounts(engine, 1)
  const answer = await engine.reserve(reserveRequest(crowdOf(1)))
  await engine.close()

  const app = Fastify()
  app.post('/v1/reserve', async (request) => ({
    ...answer,
    request_id: (request.body as ReserveRequest).request_id,
  }))
  await app.listen({ host: '127.0.0.1', port: Number(port) })
  return { run: async () => ({}), close: () => app.close() }
})
