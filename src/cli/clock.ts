/** `sluice clock`: whether a running server trusts the clock of its store. */
import { Command } from 'commander'
import { usage } from './failure.ts'
import { acceptClock, checkServer } from './http.ts'
import { print, printJson } from './output.ts'
import { actsOnServer } from './target.ts'

export function clockCommand(): Command {
  return new Command('clock').description('the clock that a server goes by').addCommand(accept())
}

function accept(): Command {
  const command = new Command('accept')
    .description(
      "take the clock of a server's store as it stands for the truth, after a jump (clock_suspect)",
    )
    .addHelpText('after', '\nExample:\n  sluice clock accept --url http://127.0.0.1:8787')
    .action(async ({ url, key, json }: { url?: string; key?: string; json?: true }) => {
      if (url === undefined) {
        throw usage(
          'It is a running server that distrusts its clock',
          'Name it with --url and --key; one that starts takes the clock as it stands.',
        )
      }
      await acceptClock(checkServer(url, key))
      if (json) printJson({ accepted: true })
      else print('The server goes by its clock as it stands')
    })
  return actsOnServer(command)
}
