/** `sluice retain`: lets go of what was recorded before a month, and leaves the books provable. */
import { Command } from 'commander'
import { usage } from './failure.ts'
import { OPERATOR } from './http.ts'
import { count, print, printJson, progress } from './output.ts'
import { parseStore } from './stores.ts'
import { jsonOption, storeOf, storeOption, withEngine } from './target.ts'

export function retainCommand(): Command {
  return new Command('retain')
    .description('let go of entries recorded before a month, behind a checkpoint of each account')
    .requiredOption('--before <month or instant>', '2026-03, or an instant in it: what is older goes')
    .option('--yes', 'it cannot be undone, and this says that you know')
    .addOption(storeOption('postgres://…'))
    .addOption(jsonOption())
    .addHelpText(
      'after',
      `
What is lost: the entries recorded before the beginning of that month, in UTC, and with them the stories of their requests, their
lines in /v1/entries and in the views; usage stays as totals have it. What stays whole: balances, grants, windows, policies, keys,
and the books: audits begin each account behind what its entries added up to. Take a backup first if you may need them.

Nothing is dropped where an account disagrees, or where a request still answers from such an entry; the month begins before the
horizon of ids, 35 days ago. It works beside running nodes, audits each account that has such entries first, and can be
run again after an interruption. PostgreSQL alone can do it.

Examples:
  sluice retain --before 2026-03 --yes --store postgres://sluice@db.internal/sluice`,
    )
    .action(async (options: { before: string; yes?: true; json?: true }, self: Command) => {
      const before = instantOf(options.before)
      if (options.yes !== true)
        throw usage(
          `Entries before ${options.before} cannot be brought back`,
          'Add --yes to let go of them; sluice retain --help says what is lost.',
        )
      const shown = progress()
      let audited = 0
      let entries = 0
      const report = await withEngine(parseStore(storeOf(self)), 'write', (engine) =>
        engine.retain(
          {
            before,
            onAccount(one) {
              audited += 1
              entries += one.entries
              shown.show(() => `retain: ${count(audited)} accounts, ${count(entries)} entries audited`)
            },
          },
          OPERATOR,
        ),
      )
      shown.end()
      if (options.json) return printJson(report)
      const day = new Date(report.before).toISOString().slice(0, 10)
      const months = report.months.length === 0 ? 'no month' : report.months.join(', ')
      print(
        `Entries before ${day} are gone: ${months} dropped, after ${count(report.entries)} entries of ${count(report.accounts)} accounts were audited`,
      )
    })
}

function instantOf(text: string): number {
  const at = /^\d{4}-\d{2}$/.test(text) ? Date.parse(`${text}-01T00:00:00Z`) : Date.parse(text)
  if (/^\d{4}-\d{2}/.test(text) && Number.isSafeInteger(at)) return at
  throw usage(
    `${text} is no month and no instant`,
    'Give 2026-03, or an instant such as 2026-03-01T00:00:00Z.',
  )
}
