/** `sluice erase`: removes a person from the books, and leaves the books whole. */
import { Argument, Command } from 'commander'
import { usage } from './failure.ts'
import { OPERATOR } from './http.ts'
import { print, printJson } from './output.ts'
import { pairs } from './reading.ts'
import { actsOnState, withDesk } from './target.ts'

export function eraseCommand(): Command {
  const command = new Command('erase')
    .description('remove what names a subject from entries, requests and logs; the chain stays whole')
    .argument('<account>', 'where')
    .addArgument(new Argument('<dimension=value>', 'whom: user=u1').argParser(pairs))
    .option('--yes', 'it cannot be undone, and this says that you know')
    .addHelpText(
      'after',
      `
Open requests of that subject must end first.

Examples:
  sluice erase acme user=ada --yes --url http://127.0.0.1:8787
  sluice erase acme user=ada --yes --store sqlite:sluice-data/sluice.db`,
    )
    .action(
      async (
        account: string,
        named: Record<string, string>,
        options: { yes?: true; json?: true },
        self: Command,
      ) => {
        const [dimension = '', value = ''] = Object.entries(named)[0] ?? []
        if (options.yes !== true) {
          throw usage(`Erasing ${dimension} ${value} of ${account} cannot be undone`, 'Add --yes to do it.')
        }
        const { entries } = await withDesk(self, 'write', (desk) =>
          desk.erase(account, dimension, value, OPERATOR),
        )
        if (options.json) return printJson({ account, dimension, value, entries })
        print(`${entries} entries of ${account} no longer name ${dimension} ${value}`)
      },
    )
  return actsOnState(command)
}
