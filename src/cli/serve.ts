/** `sluice serve`: the engine behind HTTP, in one process. */
import { rmSync, writeFileSync } from 'node:fs'
import { Command } from 'commander'
import type { Engine } from '../engine.ts'
import { GATEWAY_PORT, openGateway, readGatewayConfig, tellGateway } from './gateway.ts'
import { OPERATOR } from './http.ts'
import { print, remark } from './output.ts'
import {
  adminKeyOf,
  endOnSignal,
  howToRun,
  type LogLevel,
  policyTextOf,
  portOption,
  stands,
} from './standing.ts'
import { nameOf, type OwnClock, parseStore, type StoreAddress } from './stores.ts'
import { engineToWrite, serverFile, storeOf } from './target.ts'

const DEFAULT_PORT = 8787

interface Options {
  readonly host: string
  readonly port: number
  readonly policy?: string
  readonly testClock?: true
  readonly demo?: true
  readonly gateway?: string
  readonly gatewayPort: number
  readonly logLevel?: LogLevel
}

export function serveCommand(): Command {
  const command = new Command('serve').description('serve the engine over HTTP')
  return stands(
    command,
    DEFAULT_PORT,
    'memory:, sqlite:PATH or postgres://…, which any number of nodes share',
  )
    .option('--demo', 'serve examples/codex-and-sora.yaml with a few accounts, a key, and calls to try')
    .option('--test-clock', 'time stands still, and PUT /v1/test-clock sets it')
    .option(
      '--gateway <file>',
      'open the gateway too, as this file says, in the same process: docs/guides/gateway.md',
    )
    .addOption(portOption('--gateway-port', 'where the gateway listens, with --gateway', GATEWAY_PORT))
    .addHelpText(
      'after',
      `
SLUICE_ADMIN_KEY is accepted as an admin key that is not kept in the store, for automation. Without it, make the first
key before the first start: sluice key make ops --role admin

SIGTERM or SIGINT ends it after all that was accepted is answered; a second one ends it at once.

Examples:
  sluice serve --demo
  sluice serve --policy examples/codex-and-sora.yaml --store sqlite:/var/lib/sluice/sluice.db --port 80 --host 0.0.0.0
  SLUICE_STORE=postgres://sluice:PASSWORD@db.internal/sluice sluice serve`,
    )
    .action((options: Options, self: Command) => serve(options, storeOf(self)))
}

async function serve(options: Options, storeText: string): Promise<void> {
  const { host, port, demo = false, testClock } = options
  const adminKey = adminKeyOf(process.env.SLUICE_ADMIN_KEY)
  const address = parseStore(storeText)
  const policy = await policyText(options)
  const gateway = options.gateway === undefined ? undefined : await readGatewayConfig(options.gateway)
  const clock = testClock ? createTestClock() : undefined
  const [{ createApp }, { serve: listen }, { createLog }] = await Promise.all([
    import('../server/app.ts'),
    import('../server/serve.ts'),
    import('../server/log.ts'),
  ])
  const engine = await engineToWrite(address, { ...(clock !== undefined && { clock }) })
  try {
    if (policy !== undefined) await engine.publishPolicy(policy, undefined, OPERATOR)
    // What is shown to a person who tries it out should not drown in lines about each request.
    const level = options.logLevel ?? (demo ? 'warn' : 'info')
    const log = createLog(level)
    const app = createApp({
      engine,
      log,
      ...(adminKey !== undefined && { adminKey }),
      ...(clock !== undefined && { testClock: clock }),
    })
    const served = await listen(app, engine, { host, port })
    const addressFile = leaveAddress(address, served.url)
    log.info({ url: served.url, store: engine.health().detail }, 'listening')
    const door =
      gateway === undefined
        ? undefined
        : await openGateway({
            ...{ engine, config: gateway, host, port: options.gatewayPort, log },
            ...(adminKey !== undefined && { adminKey }),
          }).catch(async (error: unknown) => {
            // A door that is open would keep the process.
            await served.close()
            throw error
          })
    endOnSignal(
      async () => {
        // What the gateway lets through is charged by the engine, which the other door closes.
        await door?.close()
        await served.close()
      },
      () => addressFile !== undefined && rmSync(addressFile, { force: true }),
    )
    await tellStart(engine, served.url, address, demo, adminKey)
    if (door !== undefined && gateway !== undefined) await tellGateway(engine, door.url, gateway, address)
  } catch (error) {
    await engine.close()
    throw error
  }
}

async function policyText({ policy, demo }: Options): Promise<string | undefined> {
  if (policy !== undefined || !demo) return policyTextOf(policy)
  const { DEMO_POLICY } = await import('./demonstration.ts')
  return policyTextOf(DEMO_POLICY)
}

function createTestClock(): OwnClock & { set(now: number): void } {
  let at = Date.now()
  return {
    now: () => at,
    set: (now) => {
      at = now
    },
  }
}

async function tellStart(
  engine: Engine,
  url: string,
  address: StoreAddress,
  demo: boolean,
  adminKey: string | undefined,
): Promise<void> {
  const kept = address.kind === 'memory' ? 'memory, until it ends' : nameOf(address)
  if (demo) {
    const { demonstrate } = await import('./demonstration.ts')
    return print(await demonstrate(engine, url, address, kept))
  }
  // Standard output is the log's.
  remark(`Sluice listens on ${url}; state is in ${kept}`)
  const { items } = await engine.keys({ limit: 1 })
  if (items.length === 0 && adminKey === undefined) {
    remark(`There is no key yet: ${howToRun(address)}: sluice key make ops --role admin`)
  }
  if ((await engine.policyVersions({ limit: 1 })).items.length === 0) {
    remark('There is no policy yet: run sluice policy publish FILE, or start with --policy FILE')
  }
}

/** Commands that find the store locked tell where its server is. Best effort: the file is only read for that. */
function leaveAddress(address: StoreAddress, url: string): string | undefined {
  const file = serverFile(address)
  if (file === undefined) return undefined
  try {
    writeFileSync(file, `${url}\n`)
    return file
  } catch {
    return undefined
  }
}
