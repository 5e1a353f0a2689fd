/** `sluice key`: who may call. Only hashes are kept; a secret is printed once, where it is made. */
import { Command, Option } from 'commander'
import type { KeyRequest, KeyView, Role } from '../wire.ts'
import { OPERATOR } from './http.ts'
import { instantText, print, printJson, remark, table } from './output.ts'
import { collect, type Listing, listsPages, tellMore } from './pages.ts'
import { instant, pairs } from './reading.ts'
import { actsOnState, withDesk } from './target.ts'

const ROLES = ['admin', 'meter', 'read', 'call'] as const satisfies Role[]

export function keyCommand(): Command {
  return new Command('key')
    .description('keys of the HTTP interface: make, list, revoke')
    .addCommand(make())
    .addCommand(list())
    .addCommand(revoke())
}

interface Make {
  readonly role: Role
  readonly account?: string
  readonly subject?: Record<string, string>
  readonly expires?: number
  readonly json?: true
}

function make(): Command {
  const command = new Command('make')
    .description('make a key; its secret goes to standard output, this once')
    .argument('<id>', 'its id, which stands in the books as the actor')
    .addOption(
      new Option(
        '--role <role>',
        'admin: all; meter: decide and meter; read; call: through the gateway, for --account',
      )
        .choices(ROLES)
        .makeOptionMandatory(),
    )
    .option('--account <account>', 'bind it to one account')
    .addOption(
      new Option('--subject <dimension=value>', 'bind it to a subject of that account').argParser(pairs),
    )
    .addOption(new Option('--expires <instant>', 'until; such as 2026-12-31 or +90d').argParser(instant))
    .addHelpText(
      'after',
      `
Examples:
  sluice key make app --role meter
  sluice key make ada --role call --account acme --subject user=ada --expires +90d
  SLUICE_KEY=$(sluice key make ops --role admin)`,
    )
    .action(async (id: string, { role, account, subject, expires, json }: Make, self: Command) => {
      const request: KeyRequest = {
        id,
        role,
        ...(account !== undefined && { account }),
        ...(subject !== undefined && { subject }),
        ...(expires !== undefined && { expires_at: expires }),
      }
      const made = await withDesk(self, 'create', (desk) => desk.createKey(request, OPERATOR))
      if (json) return printJson(made)
      remark(`Key ${made.id} (${made.role}). This is its secret; it is not kept and not shown again:`)
      print(made.secret)
    })
  return actsOnState(command)
}

function list(): Command {
  const command = new Command('list')
    .description('list keys, without their secrets')
    .addHelpText('after', '\nExample:\n  sluice key list')
    .action(async (options: Listing & { json?: true }, self: Command) => {
      const found = await withDesk(self, 'read', (desk) => collect(options, (page) => desk.keys(page)))
      if (options.json) return printJson(found)
      print(
        table(
          ['KEY', 'ROLE', 'BOUND TO', 'MADE', 'EXPIRES', 'REVOKED'],
          found.items.map((key) => [
            key.id,
            key.role,
            bound(key),
            instantText(key.created_at),
            instantText(key.expires_at),
            instantText(key.revoked_at),
          ]),
        ),
      )
      tellMore(found)
    })
  return actsOnState(listsPages(command))
}

function bound({ account, subject = {} }: KeyView): string {
  const named = Object.entries(subject).map(([dimension, value]) => `${dimension}=${value}`)
  return [account ?? '–', ...named].join(' ')
}

function revoke(): Command {
  const command = new Command('revoke')
    .description('revoke a key: at once where it is revoked, within a second on other nodes')
    .argument('<id>', 'its id')
    .addHelpText('after', '\nExample:\n  sluice key revoke gateway')
    .action(async (id: string, options: { json?: true }, self: Command) => {
      const view = await withDesk(self, 'write', (desk) => desk.revokeKey(id, OPERATOR))
      if (options.json) return printJson(view)
      print(`Key ${view.id} is revoked since ${instantText(view.revoked_at)}`)
    })
  return actsOnState(command)
}
