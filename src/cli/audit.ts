/** `sluice audit`: recomputes the books from their entries, online, and names every disagreement. */
import { createHash } from 'node:crypto'
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { Command } from 'commander'
import type { AuditOptions, AuditReport, Disagreement, Engine } from '../engine.ts'
import { openProgress, type ProgressFile } from './audit/progress.ts'
import { openThreads } from './audit/threads.ts'
import { CliError, EXIT, usage } from './failure.ts'
import { OPERATOR } from './http.ts'
import { count, print, printJson, progress, remark } from './output.ts'
import { nameOf, parseStore, type StoreAddress } from './stores.ts'
import { type Access, jsonOption, storeOf, storeOption, withEngine } from './target.ts'

interface Options {
  readonly heads?: string
  readonly writeHeads?: string
  readonly fromCheckpoints?: true
  readonly writeCheckpoints?: true
  readonly jobs?: string
  readonly progress?: string
  readonly json?: true
}
type Heads = AuditReport['heads']

/** Disagreements told one by one in the JSON answer; all are counted. */
const LISTED = 10_000
/** Two processors are as many as an audit should take from a machine that serves. */
const USUAL_JOBS = 2
const MOST_JOBS = 64

export function auditCommand(): Command {
  return new Command('audit')
    .description('recompute charges, balances, usage, live state and the chain, and name each disagreement')
    .argument('[accounts...]', 'these alone (default: all)')
    .option('--heads <file>', 'compare with heads that an earlier audit wrote: shows a rewritten end')
    .option('--write-heads <file>', 'write the heads, if nothing disagrees; keep the file elsewhere')
    .option('--from-checkpoints', 'begin each account at its newest checkpoint')
    .option('--write-checkpoints', 'write one where nothing disagrees; needs an SQLite file for itself')
    .option('--jobs <n>', `threads (default: ${USUAL_JOBS}, or as many as there are processors if fewer)`)
    .option('--progress <file>', 'note what is done, and go on from there after an interruption')
    .addOption(storeOption())
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
It reads beside running servers; to write checkpoints to an SQLite file, stop its server. Exit code 1 where something disagrees.
From a checkpoint it finds what has happened since; what lies before, only an audit from the start.

Disagreements are told in order of account, however many threads there are: @system first, then by id; of one account 10,000 at
most, and all are counted. Each thread takes up to four connections to a PostgreSQL, and no transaction of it lasts 10 s.
Audited are all accounts that were there when it began. With --progress, start it again with the same file and options, and it
goes on behind the last account that was finished and reports on all of them; the file is removed at the end.

Examples:
  sluice audit
  sluice audit acme --store sqlite:sluice-data/sluice.db
  sluice audit --heads /backup/heads.json --write-heads /backup/heads.json
  sluice audit --write-checkpoints
  sluice audit --from-checkpoints
  sluice audit --jobs 4 --progress /var/tmp/audit.progress`,
    )
    .action(run)
}

async function run(accounts: readonly string[], options: Options, self: Command): Promise<void> {
  const store = storeOf(self)
  const address = parseStore(store)
  const heads = options.heads === undefined ? undefined : readHeads(options.heads)
  const { fromCheckpoints = false, writeCheckpoints = false } = options
  const access = writeCheckpoints ? 'write' : 'read'
  const jobs = jobsOf(options, address, access)
  const kept = progressOf(accounts, options, address)
  const told = aloud(options.json, kept?.done)
  /** Since the last account that was finished. */
  let latest: Disagreement[] = []
  let countLatest = 0
  const asked: AuditOptions = {
    ...(accounts.length > 0 && { accounts }),
    ...(heads !== undefined && { heads }),
    ...(kept?.done !== undefined && { after: kept.done.after }),
    fromCheckpoints,
    writeCheckpoints,
    onAccount(one) {
      told.onAccount(one)
      kept?.note({ ...one, found: latest, disagreements: Math.max(countLatest, one.disagreements) })
      latest = []
      countLatest = 0
    },
    onDisagreement(one) {
      told.onDisagreement(one)
      countLatest += 1
      if (latest.length < LISTED) latest.push(one)
    },
  }
  const means = { fromCheckpoints, writeCheckpoints }
  const now = await withEngine(address, access, (engine) =>
    jobs === 1 ? engine.audit(asked, OPERATOR) : inThreads(engine, asked, jobs, { store, access, means }),
  ).finally(() => kept?.flush())
  const report = together(kept, now)
  kept?.remove()
  const elapsedMs = told.end()
  if (report.disagreements > 0) process.exitCode = EXIT.finding
  else if (options.writeHeads !== undefined) writeHeads(options.writeHeads, { ...heads, ...report.heads })
  if (options.json) {
    const { heads: _, ...counts } = report
    return printJson({ ...counts, clean: report.disagreements === 0, found: told.found })
  }
  printReport(report, elapsedMs)
  if (report.disagreements > 0 && options.writeHeads !== undefined) {
    remark(`${options.writeHeads} was not written, because something disagrees.`)
  }
}

async function inThreads(
  engine: Engine,
  asked: AuditOptions,
  jobs: number,
  setting: Parameters<typeof openThreads>[1],
): Promise<AuditReport> {
  const threads = await openThreads(jobs, setting)
  try {
    return await engine.audit({ ...asked, elsewhere: threads.audit, atOnce: threads.atOnce }, OPERATOR)
  } finally {
    await threads.close()
  }
}

/** Only one thread can hold an SQLite file to write it. */
function jobsOf({ jobs }: Options, address: StoreAddress, access: Access): number {
  const alone = address.kind === 'sqlite' && access === 'write'
  const most = alone ? 1 : Math.min(USUAL_JOBS, availableParallelism())
  if (jobs === undefined) return most
  const asked = Number(jobs)
  if (!Number.isInteger(asked) || asked < 1 || asked > MOST_JOBS)
    throw usage(`--jobs is ${jobs}`, `Give a whole number from 1 to ${MOST_JOBS}.`)
  if (alone && asked > 1)
    throw usage('Checkpoints are written to an SQLite file by one thread', 'Leave --jobs out, or give 1.')
  return asked
}

/** Two audits are the same where they look at the same things in the same way. */
function progressOf(
  accounts: readonly string[],
  options: Options,
  address: StoreAddress,
): ProgressFile | undefined {
  if (options.progress === undefined) return undefined
  const { fromCheckpoints = false, writeCheckpoints = false, heads } = options
  const digest = heads === undefined ? null : createHash('sha256').update(readFileSync(heads)).digest('hex')
  const audit = {
    store: nameOf(address),
    accounts,
    heads: digest,
    from_checkpoints: fromCheckpoints,
    write_checkpoints: writeCheckpoints,
  }
  return openProgress(options.progress, audit, LISTED)
}

const latest = (one: number | null, other: number | null): number | null =>
  one === null || other === null ? (one ?? other) : Math.max(one, other)

/** What was done before an interruption, and what was done now. */
function together(kept: ProgressFile | undefined, now: AuditReport): AuditReport {
  const done = kept?.done
  if (done === undefined) return now
  return {
    ...now,
    accounts: done.accounts + now.accounts,
    entries: done.entries + now.entries,
    disagreements: done.disagreements + now.disagreements,
    checkpoints: {
      resumed: done.checkpoints.resumed + now.checkpoints.resumed,
      written: done.checkpoints.written + now.checkpoints.written,
    },
    retention: {
      accounts: done.retention.accounts + now.retention.accounts,
      before: latest(done.retention.before, now.retention.before),
      heads: done.retention.heads + now.retention.heads,
    },
    heads: { ...done.heads, ...now.heads },
  }
}

interface Aloud extends Required<Pick<AuditOptions, 'onAccount' | 'onDisagreement'>> {
  /** The first of the disagreements, for an answer in JSON; otherwise they have been printed. */
  readonly found: readonly Disagreement[]
  /** Answers how long it took, in milliseconds. */
  end(): number
}

/** Shows how far an audit has come, from what was `done` before on, and prints each disagreement or keeps it for the answer. */
export function aloud(
  json: true | undefined,
  done: Pick<AuditReport, 'accounts' | 'entries'> & { readonly found: readonly Disagreement[] } = {
    accounts: 0,
    entries: 0,
    found: [],
  },
): Aloud {
  const found = [...done.found]
  let { accounts, entries } = done
  const shown = progress()
  const begun = performance.now()
  return {
    found,
    onAccount(one) {
      accounts += 1
      entries += one.entries
      shown.show(() => `audit: ${count(accounts)} accounts, ${count(entries)} entries`)
    },
    onDisagreement(one) {
      if (json !== true) print(disagreementText(one))
      else if (found.length < LISTED) found.push(one)
    },
    end() {
      shown.end()
      return performance.now() - begun
    },
  }
}

/** Account, entry or request, amount: what one needs to look further. */
function disagreementText({ account, kind, message, seq, request, amount }: Disagreement): string {
  const where = [
    `account ${account}`,
    ...(seq === undefined ? [] : [`entry ${account}/${seq}`]),
    ...(request === undefined ? [] : [`request ${request}`]),
    ...(amount === undefined ? [] : [`${amount} CU`]),
  ]
  return `${kind}: ${message} (${where.join(', ')})`
}

/** What could not be looked at, because older entries were let go. */
function retentionTexts({ retention: { accounts, before, heads } }: AuditReport): string[] {
  if (before === null) return []
  const day = new Date(before).toISOString().slice(0, 10)
  const lines = [
    `Entries before ${day} were let go: ${count(accounts)} accounts were audited from what stood then.`,
  ]
  if (heads > 0)
    lines.push(
      `${count(heads)} heads are older than that and were compared with nothing: keep new ones with --write-heads.`,
    )
  return lines
}

export function printReport(report: AuditReport, elapsedMs: number): void {
  print(reportText(report, elapsedMs))
  for (const line of retentionTexts(report)) print(line)
}

type Counts = Pick<AuditReport, 'accounts' | 'entries' | 'disagreements'> & Partial<AuditReport>

export function reportText(report: Counts, elapsedMs: number): string {
  const { accounts, entries, disagreements, checkpoints } = report
  const { resumed, written } = checkpoints ?? { resumed: 0, written: 0 }
  const verdict = disagreements === 0 ? 'Nothing disagrees' : `${count(disagreements)} disagreements`
  const from = resumed === 0 ? '' : `, ${count(resumed)} of them from a checkpoint on`
  const kept = written === 0 ? '' : `; ${count(written)} checkpoints written`
  return `${verdict}: ${count(entries)} entries of ${count(accounts)} accounts${from} in ${(elapsedMs / 1000).toFixed(1)} s${kept}`
}

export function readHeads(file: string): Heads {
  const text = readFileSync(file, 'utf8')
  try {
    const heads = JSON.parse(text) as Heads
    const sound = Object.values(heads).every(
      ({ seq, hash }) => Number.isSafeInteger(seq) && typeof hash === 'string',
    )
    if (sound) return heads
  } catch {
    // Told below, like anything else that is no such file.
  }
  throw new CliError(EXIT.usage, `${file} has no heads`, 'Name a file that sluice audit --write-heads wrote.')
}

/** Whole or not at all: half a file of heads would accuse accounts that are sound. */
function writeHeads(file: string, heads: Heads): void {
  writeFileSync(`${file}.new`, `${JSON.stringify(heads, null, 1)}\n`)
  renameSync(`${file}.new`, file)
}
