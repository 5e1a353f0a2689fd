/** `sluice audit`: recomputes the books from their entries, online, and names every disagreement. */
import { readFileSync, renameSync, writeFileSync } from 'node:fs'
import { Command } from 'commander'
import type { AuditReport, Disagreement } from '../engine.ts'
import { CliError, EXIT } from './failure.ts'
import { OPERATOR } from './http.ts'
import { count, print, printJson, progress, remark } from './output.ts'
import { parseStore } from './stores.ts'
import { jsonOption, storeOf, storeOption, withEngine } from './target.ts'

interface Options {
  readonly heads?: string
  readonly writeHeads?: string
  readonly fromCheckpoints?: true
  readonly writeCheckpoints?: true
  readonly json?: true
}
type Heads = AuditReport['heads']

/** Disagreements told one by one in the JSON answer; all are counted. */
const LISTED = 10_000

export function auditCommand(): Command {
  return new Command('audit')
    .description('recompute charges, balances, live state and the chain, and name each disagreement')
    .argument('[accounts...]', 'these alone (default: all)')
    .option('--heads <file>', 'compare with heads that an earlier audit wrote: shows a rewritten end')
    .option('--write-heads <file>', 'write the heads, if nothing disagrees; keep the file elsewhere')
    .option('--from-checkpoints', 'begin each account at its newest checkpoint')
    .option('--write-checkpoints', 'write one where nothing disagrees; needs an SQLite file for itself')
    .addOption(storeOption())
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
It reads beside running servers; to write checkpoints to an SQLite file, stop its server. Exit code 1 where something disagrees.
From a checkpoint it finds what has happened since; what lies before, only an audit from the start.

Examples:
  sluice audit
  sluice audit acme --store sqlite:sluice-data/sluice.db
  sluice audit --heads /backup/heads.json --write-heads /backup/heads.json
  sluice audit --write-checkpoints
  sluice audit --from-checkpoints`,
    )
    .action(async (accounts: readonly string[], options: Options, self: Command) => {
      const heads = options.heads === undefined ? undefined : readHeads(options.heads)
      const found: Disagreement[] = []
      const shown = progress()
      const begun = performance.now()
      let entries = 0
      let audited = 0
      const { fromCheckpoints = false, writeCheckpoints = false } = options
      const access = writeCheckpoints ? 'write' : 'read'
      const report = await withEngine(parseStore(storeOf(self)), access, (engine) =>
        engine.audit(
          {
            ...(accounts.length > 0 && { accounts }),
            ...(heads !== undefined && { heads }),
            fromCheckpoints,
            writeCheckpoints,
            onAccount(_account, of) {
              audited += 1
              entries += of
              shown.show(() => `audit: ${count(audited)} accounts, ${count(entries)} entries`)
            },
            onDisagreement(one) {
              if (options.json !== true) print(disagreementText(one))
              else if (found.length < LISTED) found.push(one)
            },
          },
          OPERATOR,
        ),
      )
      shown.end()
      if (report.disagreements > 0) process.exitCode = EXIT.finding
      else if (options.writeHeads !== undefined) writeHeads(options.writeHeads, { ...heads, ...report.heads })
      if (options.json) {
        const { heads: _, ...counts } = report
        return printJson({ ...counts, clean: report.disagreements === 0, found })
      }
      print(reportText(report, performance.now() - begun))
      if (report.disagreements > 0 && options.writeHeads !== undefined) {
        remark(`${options.writeHeads} was not written, because something disagrees.`)
      }
    })
}

/** Account, entry or request, amount: what one needs to look further. */
export function disagreementText({ account, kind, message, seq, request, amount }: Disagreement): string {
  const where = [
    `account ${account}`,
    ...(seq === undefined ? [] : [`entry ${account}/${seq}`]),
    ...(request === undefined ? [] : [`request ${request}`]),
    ...(amount === undefined ? [] : [`${amount} CU`]),
  ]
  return `${kind}: ${message} (${where.join(', ')})`
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

function readHeads(file: string): Heads {
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
