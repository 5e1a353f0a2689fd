/** `sluice gateway`: the gateway and its engine, in one process. `serve --gateway` opens the same door beside the other one. */
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import type { AddressInfo } from 'node:net'
import { Command } from 'commander'
import type { Logger } from 'pino'
import type { Engine } from '../engine.ts'
import type { GatewayConfig } from '../gateway/config.ts'
import { usage } from './failure.ts'
import { OPERATOR } from './http.ts'
import { remark } from './output.ts'
import { adminKeyOf, endOnSignal, howToRun, type LogLevel, policyTextOf, stands } from './standing.ts'
import { nameOf, parseStore, type StoreAddress } from './stores.ts'
import { engineToWrite, storeOf } from './target.ts'

export const GATEWAY_PORT = 8788

interface Options {
  readonly config: string
  readonly host: string
  readonly port: number
  readonly policy?: string
  readonly logLevel?: LogLevel
}

export function gatewayCommand(): Command {
  const command = new Command('gateway')
    .description('serve AI providers through the engine: a client changes its base URL, and is metered')
    .requiredOption('--config <file>', 'upstreams and routes, in YAML: docs/guides/gateway.md')
  return stands(
    command,
    GATEWAY_PORT,
    'sqlite:PATH, or postgres://…, which any number of gateways and servers share',
  )
    .addHelpText(
      'after',
      `
The upstreams' keys are in the environment, under the names that the configuration gives. Clients bring keys that are bound to
an account: sluice key make ada --role call --account ada --subject user=ada

An SQLite file has room for one process: to change accounts and credits while the gateway runs, open both doors in one with
sluice serve --gateway FILE. SIGTERM or SIGINT ends it after what runs has ended, for ten seconds at most; a second one ends it at once.

Examples:
  sluice gateway --config gateway.yaml --policy plans.yaml
  SLUICE_STORE=postgres://sluice:PASSWORD@db.internal/sluice sluice gateway --config gateway.yaml --host 0.0.0.0`,
    )
    .action((options: Options, self: Command) => gateway(options, storeOf(self)))
}

async function gateway({ config: file, host, port, ...options }: Options, storeText: string): Promise<void> {
  const adminKey = adminKeyOf(process.env.SLUICE_ADMIN_KEY)
  const address = parseStore(storeText)
  if (address.kind === 'memory')
    throw usage(
      'Nobody could make an account in the memory of a gateway',
      'Name a store, or open both doors: sluice serve --store memory: --gateway FILE.',
    )
  const [config, policy, { createLog }, { createMetrics }] = await Promise.all([
    readGatewayConfig(file),
    policyTextOf(options.policy),
    import('../server/log.ts'),
    import('../server/metrics.ts'),
  ])
  const engine = await engineToWrite(address)
  try {
    if (policy !== undefined) await engine.publishPolicy(policy, undefined, OPERATOR)
    const log = createLog(options.logLevel ?? 'info')
    const metrics = createMetrics(engine)
    const door = await openGateway({
      ...{ engine, config, host, port, log, moreMetrics: metrics.render },
      ...(adminKey !== undefined && { adminKey }),
    })
    endOnSignal(async () => {
      await door.close()
      metrics.close()
      await engine.close()
    })
    remark(`State is in ${nameOf(address)}`)
    await tellGateway(engine, door.url, config, address)
  } catch (error) {
    await engine.close()
    throw error
  }
}

/** Read and checked before anything is opened. */
export async function readGatewayConfig(file: string): Promise<GatewayConfig> {
  const { readConfig } = await import('../gateway/config.ts')
  return readConfig(readFileSync(file, 'utf8'), process.env)
}

export interface GatewayDoor {
  readonly url: string
  close(): Promise<void>
}

export async function openGateway(given: {
  readonly engine: Engine
  readonly config: GatewayConfig
  readonly host: string
  readonly port: number
  readonly log: Logger
  readonly adminKey?: string
  readonly moreMetrics?: () => string
}): Promise<GatewayDoor> {
  const { host, port, log, engine, ...options } = given
  const { createGateway } = await import('../gateway/app.ts')
  const { server, listenGrpc, close } = createGateway({ engine, log, ...options })
  server.listen(port, host)
  await once(server, 'listening')
  const grpcPort = await listenGrpc()
  const { address, port: taken, family } = server.address() as AddressInfo
  const url = `http://${family === 'IPv6' ? `[${address}]` : address}:${taken}`
  log.info(
    { url, ...(grpcPort !== undefined && { grpcPort }), store: engine.health().detail },
    'the gateway listens',
  )
  return { url, close: () => close() }
}

/** Where it is, what it stands before, and a first call. Standard output is the log's. */
export async function tellGateway(
  engine: Engine,
  url: string,
  config: GatewayConfig,
  address: StoreAddress,
): Promise<void> {
  const upstreams = [...config.upstreams.values()]
  const lines = [
    `The gateway listens on ${url}; give clients ${url}/v1 as their base URL`,
    ...upstreams.map(({ name, provider, url: to }) => `  upstream ${name}: ${provider.name} at ${to}`),
  ]
  if ((await engine.policyVersions({ limit: 1 })).items.length === 0)
    lines.push('There is no policy yet: run sluice policy publish FILE, or start with --policy FILE')
  if (!(await hasClientKey(engine)))
    lines.push(
      `No key is bound to an account yet: ${howToRun(address)}: sluice key make ada --role call --account ada`,
    )
  remark([...lines, 'A first call, with such a key in KEY:', `  ${firstCall(url, config)}`].join('\n'))
}

async function hasClientKey(engine: Engine): Promise<boolean> {
  const { items } = await engine.keys({ limit: 100 })
  return items.some(({ account, revoked_at }) => account !== undefined && revoked_at === null)
}

function firstCall(url: string, config: GatewayConfig): string {
  const auth = '-H "authorization: Bearer $KEY"'
  const chat = config.routes.find(
    ({ targets, endpoint }) =>
      targets[0]?.upstream.provider.name === 'openai' && endpoint.test('chat.completions'),
  )
  if (chat === undefined) return `curl -s ${url}/v1/models ${auth}`
  const model = chat.modelText.includes('*') ? 'MODEL' : chat.modelText
  const body = JSON.stringify({ model, messages: [{ role: 'user', content: 'Hello' }], stream: true })
  return `curl -sN ${url}/v1/chat/completions ${auth} -H 'content-type: application/json' -d '${body}'`
}
