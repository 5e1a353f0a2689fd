/** `sluice replay`: real traffic through the whole engine, on a store of its own, on the trace's own time. */
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { Command, InvalidArgumentError, Option } from 'commander'
import type { Engine } from '../engine.ts'
import type { Millis } from '../units.ts'
import { EXIT, usage } from './failure.ts'
import { count, print, printJson, progress, remark } from './output.ts'
import { compiled, readPolicyFile } from './policy.ts'
import { duration, instant, pairs, whole, words } from './reading.ts'
import { createAssigner, DEFAULT_ACCOUNTS } from './replay/assign.ts'
import { type ReplayReport, replayText, reportOf, type Setup } from './replay/report.ts'
import { replay } from './replay/run.ts'
import { fullSpeed, paced, type Timeline } from './replay/schedule.ts'
import { estimatorsOf, featureOf, type Options, plansOf, setupOf } from './replay/setup.ts'
import type { Tally } from './replay/tally.ts'
import { openTrace, type Trace, type TraceRow } from './replay/trace.ts'
import { nameOf, parseStore, type StoreAddress } from './stores.ts'
import { engineToWrite, jsonOption, withEngine } from './target.ts'

/** 2026-01-05 is a Monday: times of a trace that count from zero begin there. */
const DEFAULT_START = Date.UTC(2026, 0, 5)

export function replayCommand(): Command {
  return withTuning(
    new Command('replay')
      .description('replay a trace: reserve an estimate, settle the real usage, and tell what happened')
      .argument('<trace>', 'CSV, plain or gzip')
      .requiredOption('--policy <file>', 'the policy to replay it under')
      .addOption(
        new Option(
          '--accounts <number>',
          `how many accounts (default: ${DEFAULT_ACCOUNTS}, or one for each client of the trace)`,
        ).argParser(whole(1, 10_000_000)),
      )
      .addOption(
        new Option('--speed <speed>', 'max, or 1x, 60x and so on').default(0, 'max').argParser(speed),
      )
      .addOption(
        new Option('--seed <number>', 'of everything that is drawn').default(1).argParser(whole(0, 2 ** 31)),
      )
      .option(
        '--store <address>',
        'keep the state: sqlite:PATH of a new file, or postgres://… of an empty database after sluice migrate (default: a temporary file)',
      )
      .addOption(
        new Option('--plan <plans>', 'plan, or plans drawn by weight: free:7,plus:2,pro:1').argParser(words),
      )
      .option('--credits <amount>', 'CU that each account has bought before')
      .addOption(
        new Option('--limit <rows>', 'stop after so many')
          .default(Number.MAX_SAFE_INTEGER, 'all')
          .argParser(whole(1, 1e12)),
      )
      .option('--audit', 'audit the books at the end')
      .option('--report <file>', 'write the report as JSON, too')
      .addOption(jsonOption()),
  )
    .addHelpText('after', HELP)
    .action(run)
}

const HELP = `
Known by their header are the Azure LLM traces and the ServeGen workloads. All others say their columns:
  --time COLUMN --client COLUMN --quantity input_tokens=prompt+image --quantity output_tokens=completion

Examples:
  sluice replay azure.csv.gz --policy examples/codex-and-sora.yaml --accounts 200 --plan free:7,plus:2,pro:1 --audit
  sluice replay servegen.csv --policy p.yaml --speed 60x --store sqlite:/tmp/replay.db --limit 5000`

function withTuning(command: Command): Command {
  return command
    .option('--time <column>', 'when: a date in UTC or with its zone, or seconds from the start')
    .option('--client <column>', 'who')
    .addOption(
      new Option(
        '--quantity <name=columns>',
        'what was used, columns summed with +; may be repeated',
      ).argParser(pairs),
    )
    .addOption(
      new Option('--start <instant>', 'where seconds count from')
        .default(DEFAULT_START, '2026-01-05')
        .argParser(instant),
    )
    .addOption(
      new Option('--users <number>', 'users in each account, where the trace has no clients')
        .default(1)
        .argParser(whole(1, 100_000)),
    )
    .option(
      '--feature <feature>',
      'what is asked for (default: the first that prices a quantity of the trace)',
    )
    .addOption(
      new Option('--attribute <name=value>', 'such as model=gpt-5.5; may be repeated').argParser(pairs),
    )
    .addOption(
      new Option('--estimated <quantities>', 'known only at the end')
        .default(['output_tokens'], 'output_tokens')
        .argParser(words),
    )
    .option(
      '--estimate <rule>',
      'how they are guessed: p50 and so on of the last 1000, exact, or a number',
      'p90',
    )
    .addOption(
      new Option('--tokens-per-second <number>', 'how fast output is written')
        .default(50)
        .argParser(whole(1, 1_000_000)),
    )
    .addOption(
      new Option('--base-duration <duration>', 'how long a request runs besides')
        .default(300, '300ms')
        .argParser(duration),
    )
    .addOption(
      new Option('--patience <duration>', 'the longest wait that is waited for, once')
        .default(60_000, '1m')
        .argParser(duration),
    )
    .addOption(
      new Option('--concurrency <number>', 'operations in flight at once')
        .default(256)
        .argParser(whole(1, 4096)),
    )
    .addOption(
      new Option('--step <duration>', 'how finely time goes at full speed')
        .default(1000, '1s')
        .argParser(duration),
    )
}

/** 0 stands for as fast as it goes. */
function speed(text: string): number {
  if (text === 'max') return 0
  const factor = Number(/^(\d{1,6}(?:\.\d{1,3})?)x$/.exec(text)?.[1])
  if (factor > 0) return factor
  throw new InvalidArgumentError('It takes max, or a factor such as 1x or 60x.')
}

async function run(file: string, options: Options): Promise<void> {
  const policyText = readPolicyFile(options.policy)
  const policy = await compiled(options.policy, policyText)
  const trace = await openTrace(file, { ...options, startAt: options.start })
  const plans = plansOf(policy, options.plan)
  const feature = featureOf(policy, options.feature, Object.keys(trace.mapping.quantities))
  const assigner = createAssigner(
    { ...options, accounts: options.accounts, plans },
    trace.mapping.client !== undefined,
  )
  const estimators = estimatorsOf(options, trace)
  const { first, rows } = await peek(trace)
  const timeline = timelineOf(options, first?.at ?? options.start)
  const place = await placeOf(options.store)
  const shown = progress()
  try {
    const engine = await engineToWrite(place.address, { clock: timeline, schema: 'require' })
    try {
      await engine.publishPolicy(policyText, undefined)
      const begun = performance.now()
      const tally = await replay({
        engine,
        rows,
        timeline,
        owner: assigner.owner,
        estimators,
        feature,
        attributes: options.attribute ?? {},
        credits: options.credits,
        patienceMs: options.patience,
        runs: { baseMs: options.baseDuration, perSecond: options.tokensPerSecond },
        onProgress: (tally) => shown.show(() => progressText(tally, timeline.now(), begun)),
      })
      const elapsedMs = performance.now() - begun
      shown.end()
      await finish(
        engine,
        options,
        tally,
        elapsedMs,
        trace,
        setupOf(file, options, trace, feature, assigner, estimators, timeline, place.told),
      )
    } finally {
      await engine.close()
    }
  } finally {
    shown.end()
    trace.close()
    place.remove()
  }
}

async function finish(
  engine: Engine,
  options: Options,
  tally: Tally,
  elapsedMs: number,
  trace: Trace,
  setup: Setup,
): Promise<void> {
  const auditBegun = performance.now()
  const audit = options.audit
    ? await engine.audit({ onDisagreement: (one) => remark(JSON.stringify(one)) })
    : undefined
  const auditMs = performance.now() - auditBegun
  if (audit !== undefined && audit.disagreements > 0) process.exitCode = EXIT.finding
  const report: ReplayReport = await reportOf(setup, engine, tally, elapsedMs, trace.late(), audit)
  if (options.report !== undefined) writeFileSync(options.report, `${JSON.stringify(report, null, 2)}\n`)
  if (options.json) printJson(report)
  else print(replayText(report, auditMs))
}

function progressText(tally: Tally, now: Millis, begun: number): string {
  const perSecond = (1000 * tally.operations) / (performance.now() - begun)
  return `replay: ${count(tally.requests)} requests, at ${new Date(now).toISOString()}, ${count(Math.round(perSecond))} operations a second`
}

interface Place {
  readonly address: StoreAddress
  readonly told: string
  remove(): void
}

/** Replays need a store of their own: their clock is the trace's, and they publish a policy. */
async function placeOf(store: string | undefined): Promise<Place> {
  if (store !== undefined) {
    const address = parseStore(store)
    if (address.kind === 'sqlite' && existsSync(address.path)) {
      throw usage(`${address.path} is there already`, 'A replay begins empty: name a new file.')
    }
    // Looked at on its own time first: the trace's would leave its mark.
    if (address.kind === 'postgres' && !(await withEngine(address, 'read', isEmpty))) {
      throw usage(`${nameOf(address)} is in use`, 'A replay begins empty: name a database of its own.')
    }
    return { address, told: address.kind === 'postgres' ? nameOf(address) : store, remove: () => {} }
  }
  const folder = mkdtempSync(join(tmpdir(), 'sluice-replay-'))
  return {
    address: parseStore(`sqlite:${join(folder, 'replay.db')}`),
    told: 'SQLite, in a temporary file (keep it with --store)',
    remove: () => rmSync(folder, { recursive: true, force: true }),
  }
}

async function isEmpty(engine: Engine): Promise<boolean> {
  const one = { limit: 1 }
  const pages = await Promise.all([engine.accounts(one), engine.keys(one), engine.policyVersions(one)])
  return pages.every(({ items }) => items.length === 0)
}

/** The first row tells where time begins; it is handed on with the others. */
async function peek({
  rows,
}: Trace): Promise<{ first: TraceRow | undefined; rows: AsyncIterator<TraceRow> }> {
  const found = await rows.next()
  if (found.done) return { first: undefined, rows }
  let handed = false
  const all: AsyncIterator<TraceRow> = {
    next() {
      if (handed) return rows.next()
      handed = true
      return Promise.resolve(found)
    },
  }
  return { first: found.value, rows: all }
}

function timelineOf({ speed: factor, concurrency, step }: Options, startAt: Millis): Timeline {
  const options = { startAt, concurrency, stepMs: Math.max(1, step) }
  return factor === 0 ? fullSpeed(options) : paced(options, factor)
}
