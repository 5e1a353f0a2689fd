/** `sluice serve`: the engine behind HTTP, in one process. */
import { rmSync, writeFileSync } from 'node:fs'
import { Command, Option } from 'commander'
import type { Engine } from '../engine.ts'
import { failureOf, usage } from './failure.ts'
import { OPERATOR } from './http.ts'
import { print, remark } from './output.ts'
import { compiled, readPolicyFile } from './policy.ts'
import { whole } from './reading.ts'
import { nameOf, type OwnClock, parseStore, type StoreAddress } from './stores.ts'
import { engineToWrite, serverFile, storeOf, storeOption } from './target.ts'

const LEVELS = ['fatal', 'error', 'warn', 'info', 'debug', 'trace', 'silent'] as const
const DEFAULT_PORT = 8787

interface Options {
  readonly host: string
  readonly port: number
  readonly policy?: string
  readonly testClock?: true
  readonly demo?: true
  readonly logLevel?: (typeof LEVELS)[number]
}

export function serveCommand(): Command {
  return new Command('serve')
    .description('serve the engine over HTTP')
    .option('--host <address>', 'where to listen', '127.0.0.1')
    .addOption(
      new Option('--port <number>', '0 takes any that is free')
        .default(DEFAULT_PORT)
        .argParser(whole(0, 65_535)),
    )
    .option('--policy <file>', 'publish this policy at start, where it differs from the one in force')
    .addOption(storeOption('memory:, sqlite:PATH or postgres://…, which any number of nodes share'))
    .option('--demo', 'serve examples/codex-and-sora.yaml with a few accounts, a key, and calls to try')
    .option('--test-clock', 'time stands still, and PUT /v1/test-clock sets it')
    .addOption(
      new Option('--log-level <level>', 'how much to log, to standard output')
        .choices(LEVELS)
        .env('SLUICE_LOG_LEVEL'),
    )
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
    endOnSignal(served.close, leaveAddress(address, served.url))
    log.info({ url: served.url, store: engine.health().detail }, 'listening')
    await tellStart(engine, served.url, address, demo, adminKey)
  } catch (error) {
    await engine.close()
    throw error
  }
}

/** Read and checked before the store is opened: a broken policy must not even touch the state. */
async function policyText({ policy, demo }: Options): Promise<string | undefined> {
  if (policy === undefined && !demo) return undefined
  const { DEMO_POLICY } = await import('./demonstration.ts')
  const file = policy ?? DEMO_POLICY
  const text = readPolicyFile(file)
  await compiled(file, text)
  return text
}

/** The same form that the door accepts in a header; a shorter one could be guessed. */
function adminKeyOf(key: string | undefined): string | undefined {
  if (key === undefined || key === '') return undefined
  if (/^[\x21-\x7e]{16,512}$/.test(key)) return key
  throw usage('SLUICE_ADMIN_KEY is not a key', 'Give it 16 to 512 printable ASCII characters without space.')
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
    // Nobody else may write a file that it serves.
    const first = address.kind === 'postgres' ? 'run, with the same store' : 'stop it, and run'
    remark(`There is no key yet: ${first}: sluice key make ops --role admin`)
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

function endOnSignal(close: () => Promise<void>, addressFile: string | undefined): void {
  let ending = false
  const end = (signal: NodeJS.Signals): void => {
    // By convention a process that a signal ends says so in its code.
    if (ending) process.exit(signal === 'SIGINT' ? 130 : 143)
    ending = true
    if (addressFile !== undefined) rmSync(addressFile, { force: true })
    // Then nothing is left that keeps the process: it ends by itself, when the log is written.
    close().catch((error: unknown) => {
      const { line, exit } = failureOf(error)
      remark(line)
      process.exitCode = exit
    })
  }
  process.on('SIGTERM', end)
  process.on('SIGINT', end)
}
