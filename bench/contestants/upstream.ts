/** What stands behind the gateway: the example's server, whose answers end at their bound alone, so that all are alike. */
import { startUpstream } from '../../examples/upstream/server.ts'
import { perform } from '../contestant.ts'

await perform(async ({ port, tokensPerSecond }) => {
  const upstream = await startUpstream({
    port: Number(port),
    tokensPerSecond: Number(tokensPerSecond ?? 0),
    isEndless: true,
  })
  return { run: async () => ({}), close: () => upstream.close() }
})
