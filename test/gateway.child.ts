/** A gateway as a process of its own: tells its parent where it listens, and an account when it is asked for one. */
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { createEngine } from '../src/engine.ts'
import { createGateway } from '../src/gateway/app.ts'
import { readConfig } from '../src/gateway/config.ts'
import { sqliteStore } from '../src/store/sqlite/store.ts'

const [path = '', upstream = ''] = process.argv.slice(2)
const spends = { waterfall: [{ credits: ['purchased'] as const }] }
const engine = await createEngine({
  store: sqliteStore({ path }),
  policy: {
    features: { chat: { rate_card: [{ per_unit: { input_tokens: 1, output_tokens: 10 } }] } },
    plans: {
      releases: { ...spends, hold: { on_expiry: 'release' } },
      charges: { ...spends, hold: { on_expiry: 'charge' } },
    },
  },
})
const config = readConfig(
  `upstreams: { main: { provider: openai, url: '${upstream}' } }
routes: [{ upstream: main, feature: chat }]
usual_output_tokens: 40`,
  {},
)
const gateway = createGateway({ engine, config, onFault: (error) => console.error(error) })
gateway.server.listen(0, '127.0.0.1')
await once(gateway.server, 'listening')
type Ask = { readonly id: number; readonly account: string; readonly plan?: string; readonly ends?: true }
process.on('message', async ({ id, account, plan, ends }: Ask) => {
  const told = ends
    ? await endsOf(account)
    : plan === undefined
      ? await known(account)
      : await made(account, plan)
  process.send?.({ id, told })
})
process.send?.(`http://127.0.0.1:${(gateway.server.address() as AddressInfo).port}`)

async function made(account: string, plan: string): Promise<string> {
  await engine.createAccount({ id: account, plan })
  await engine.grant(account, { id: 'g', kind: 'purchased', amount: '1000000' })
  return (await engine.createKey({ id: `key-${account}`, role: 'meter', account })).secret
}

async function known(account: string) {
  const used = await engine.usage(account, { from: 0, to: Date.now() + 1_000 })
  return { account: await engine.account(account), used }
}

/** Of each request: when it was decided last and until when it was held then, and when its hold ended; all by the journal's clock. */
async function endsOf(account: string) {
  const holds: Record<string, { decidedAt?: number; until?: number; endedAt?: number }> = {}
  let cursor: string | undefined
  do {
    const page = await engine.entries(account, {
      ...{ kinds: ['decision', 'usage', 'change'], limit: 100 },
      ...(cursor !== undefined && { cursor }),
    })
    for (const { kind, at, request, body } of page.items) {
      if (request === undefined) continue
      holds[request] ??= {}
      const hold = holds[request]
      if (kind !== 'decision') hold.endedAt = at
      else Object.assign(hold, { decidedAt: at, until: body.expires_at })
    }
    cursor = page.next ?? undefined
  } while (cursor !== undefined)
  return Object.values(holds)
}
