/** What tests of the gateway beside other proxies share: an engine, a gateway on ports of its own, accounts with keys. */
import { once } from 'node:events'
import type { AddressInfo } from 'node:net'
import { setTimeout as pause } from 'node:timers/promises'
import { createEngine, type Engine } from '../src/engine.ts'
import { SluiceError } from '../src/errors.ts'
import { createGateway } from '../src/gateway/app.ts'
import { readConfig } from '../src/gateway/config.ts'
import { memoryStore } from '../src/store/memory.ts'
import type { Store } from '../src/store.ts'
import type { KeyRequest, Subject } from '../src/wire.ts'

/** `call` has no price of its own; `tokens` has, as models are billed. */
export const POLICY = {
  features: {
    call: {},
    tokens: {
      rate_card: [{ per_unit: { input_tokens: 1, cached_input_tokens: '0.1', output_tokens: 10 } }],
      default_estimate: { input_tokens: 10, output_tokens: 1 },
    },
  },
  plans: {
    plan: { waterfall: [{ credits: ['purchased'] }] },
    /** Two at once, and the next in half an hour: longer than any test takes. */
    seldom: {
      guards: [{ name: 'calls', rate: { meter: 'requests', limit: 2, per: '1h', burst: 2 } }],
      waterfall: [{ credits: ['purchased'] }],
    },
  },
} as const

export interface Beside {
  readonly engine: Engine
  readonly url: string
  readonly grpcPort: number | undefined
  /** What the gateway reported as faults. */
  readonly faults: readonly unknown[]
  /** Makes an account with so many credits, and answers the secret of a key that stands for it. */
  account(
    id: string,
    credits: string,
    more?: { readonly plan?: string; readonly subject?: Subject },
  ): Promise<string>
  key(request: KeyRequest): Promise<string>
  /** What was charged in all, and in how many requests, when nothing is held any more. */
  charged(account: string): Promise<readonly [requests: number, charged: string]>
  /** While it is away, the store does nothing for any account; keys are still known. */
  readonly store: { isAway: boolean }
  /** Ends the gateway alone: Sluice is gone. */
  stopGateway(): Promise<void>
  close(): Promise<void>
}

export async function beside(config: string, policy: object = POLICY): Promise<Beside> {
  const real = memoryStore()
  const store = { isAway: false }
  const transact: Store['transact'] = (account, ...more) =>
    store.isAway && account !== '@system'
      ? Promise.reject(new SluiceError('unavailable', 'The store is away.'))
      : real.transact(account, ...more)
  const engine = await createEngine({
    store: Object.assign(Object.create(real), { transact }),
    policy: policy as never,
  })
  const faults: unknown[] = []
  const gateway = createGateway({
    engine,
    config: readConfig(config, {}),
    onFault: (error) => faults.push(error),
  })
  gateway.server.listen(0, '127.0.0.1')
  await once(gateway.server, 'listening')
  const grpcPort = await gateway.listenGrpc()
  let keys = 0
  const key = async (request: KeyRequest) => (await engine.createKey(request)).secret
  let stopped: Promise<void> | undefined
  const stopGateway = () => (stopped ??= gateway.close(100))
  return {
    ...{ engine, store },
    url: `http://127.0.0.1:${(gateway.server.address() as AddressInfo).port}`,
    ...{ grpcPort, faults, key, stopGateway },
    async account(id, credits, { plan = 'plan', subject } = {}) {
      await engine.createAccount({ id, plan })
      await engine.grant(id, { id: 'g', kind: 'purchased', amount: credits })
      return key({
        ...{ id: `key-${id}-${++keys}`, role: 'meter', account: id },
        ...(subject !== undefined && { subject }),
      })
    },
    async charged(account) {
      while ((await engine.account(account)).open_holds > 0) await pause(5)
      const rows = await engine.usage(account, { from: 0, to: Date.now() + 60_000 })
      return [rows[0]?.requests ?? 0, rows[0]?.charged ?? '0']
    },
    stopGateway,
    async close() {
      await stopGateway()
      await engine.close()
    },
  }
}
