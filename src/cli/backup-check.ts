/** `sluice backup-check`: restores a backup where nobody works, audits what comes out, and leaves nothing behind. */
import { basename, dirname } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { Command } from 'commander'
import type { AuditReport } from '../engine.ts'
import { aloud, printReport, readHeads } from './audit.ts'
import { withCopy } from './backup/copy.ts'
import { type Format, formatOf } from './backup/dump.ts'
import { restore } from './backup/restore.ts'
import { CliError, EXIT, usage } from './failure.ts'
import { OPERATOR } from './http.ts'
import { instantText, print, printJson } from './output.ts'
import { type PostgresAddress, parseStore, type StoreAddress } from './stores.ts'
import { jsonOption, storeOf, storeOption, withEngine } from './target.ts'

interface Options {
  readonly heads?: string
  readonly json?: true
}

export function backupCheckCommand(): Command {
  return new Command('backup-check')
    .description('restore a backup into an empty database, audit it, and drop that database again')
    .argument('<backup>', 'what pg_dump wrote, in any of its formats, or the copy of an SQLite file')
    .option('--heads <file>', 'compare with heads that an audit wrote before the backup was made')
    .addOption(storeOption('the PostgreSQL where an empty database may be made; an SQLite file needs none'))
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
It makes a database sluice_check_… on that server, restores the schema sluice with pg_restore or psql, audits it, and drops the
database again, also after a failure or Ctrl-C; what a check that was killed has left, the next one drops. No other database is touched. Exit code 1 where the backup cannot be restored, or
something in it disagrees.

Examples:
  sluice backup-check sluice.dump --store postgres://postgres@127.0.0.1/postgres
  sluice backup-check sluice.dump --heads heads.json --store postgres://postgres@127.0.0.1/postgres
  sluice backup-check copy.db`,
    )
    .action(async (path: string, options: Options, self: Command) => {
      const format = formatOf(path)
      const heads = options.heads === undefined ? undefined : readHeads(options.heads)
      const check = async (address: StoreAddress, restoredMs?: number) =>
        withEngine(address, 'copy', async (engine) => {
          const { found, end, ...told } = aloud(options.json)
          const report = await engine.audit({ ...told, ...(heads !== undefined && { heads }) }, OPERATOR)
          return { report, found, elapsedMs: end(), restoredMs, youngestAt: await youngestIn(address) }
        })
      const checked =
        format === 'sqlite'
          ? await check({ kind: 'sqlite', path, folder: dirname(path) })
          : await withCopy(serverOf(self), async (copy, aborted) =>
              check(copy, await restoreWhole(path, format, copy, aborted)),
            )
      tell(path, checked, options.json)
    })
}

function serverOf(command: Command): PostgresAddress {
  const address = parseStore(storeOf(command))
  if (address.kind === 'postgres') return address
  throw usage(
    'The backup of a PostgreSQL is restored into one',
    'Name a server where a database may be made: --store postgres://USER@HOST/postgres.',
  )
}

/** Answers how long it took, in milliseconds. */
async function restoreWhole(
  path: string,
  format: Format,
  copy: PostgresAddress,
  aborted: AbortSignal,
): Promise<number> {
  const begun = performance.now()
  await restore(path, format, copy, aborted)
  const restoredMs = performance.now() - begun
  // The audit of a schema that is missing, and so made anew, would find nothing wrong with it.
  if (!(await hasSchema(copy)))
    throw new CliError(
      EXIT.finding,
      `${path} has no state of Sluice`,
      'Dump the database of Sluice, with its schema sluice and its rows.',
    )
  return restoredMs
}

async function hasSchema(copy: PostgresAddress): Promise<boolean> {
  const [[table] = [null]] = await ask(copy, "select to_regclass('sluice.schema_version')::text")
  return table !== null && (await ask(copy, 'select version from sluice.schema_version')).length > 0
}

async function ask({ url }: PostgresAddress, sql: string) {
  const { connect, statement } = await import('../store/postgres/connection.ts')
  const connection = await connect(url, 'sluice backup-check')
  try {
    return await connection.run(statement('check', sql))
  } finally {
    await connection.end().catch(() => {})
  }
}

/** When the last entry was written, in the order of commits; null where there is none, or none that can be read. */
async function youngestIn(address: StoreAddress): Promise<number | null> {
  if (address.kind === 'postgres') {
    const rows = await ask(address, 'select recorded_at from journal order by position desc limit 1')
    return (rows[0]?.[0] as number | undefined) ?? null
  }
  const db = new DatabaseSync((address as { path: string }).path, { readOnly: true })
  try {
    const row = db.prepare('select body from journal order by id desc limit 1').get()
    const { at, recorded_at = at } = JSON.parse(String(row?.body ?? '{}'))
    return Number.isSafeInteger(recorded_at) ? recorded_at : null
  } catch {
    return null
  } finally {
    db.close()
  }
}

interface Checked {
  readonly report: AuditReport
  readonly found: readonly unknown[]
  readonly elapsedMs: number
  readonly restoredMs: number | undefined
  readonly youngestAt: number | null
}

function tell(path: string, checked: Checked, json: true | undefined): void {
  const { report, found, elapsedMs, restoredMs, youngestAt } = checked
  const { heads: _, accounts, entries, disagreements } = report
  if (disagreements > 0) process.exitCode = EXIT.finding
  if (json) {
    const times = {
      ...(restoredMs !== undefined && { restored_ms: Math.round(restoredMs) }),
      audited_ms: Math.round(elapsedMs),
    }
    const counts = { accounts, entries, disagreements, clean: disagreements === 0 }
    return printJson({ backup: path, youngest_at: youngestAt, ...counts, ...times, found })
  }
  if (restoredMs !== undefined) print(`${basename(path)} was restored in ${(restoredMs / 1000).toFixed(1)} s`)
  printReport(report, elapsedMs)
  print(
    youngestAt === null
      ? 'This backup has no entries'
      : `This backup stands as of ${instantText(youngestAt)}, when its last entry was written`,
  )
}
