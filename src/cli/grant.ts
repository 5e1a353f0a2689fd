/** `sluice grant`: credits of an account. */
import { randomUUID } from 'node:crypto'
import { Command, Option } from 'commander'
import type { GrantKind, GrantRequest, GrantView } from '../wire.ts'
import { OPERATOR } from './http.ts'
import { instantText, print, printJson, table } from './output.ts'
import { collect, type Listing, listsPages, tellMore } from './pages.ts'
import { instant, pairs, whole, words } from './reading.ts'
import { actsOnState, withDesk } from './target.ts'

const KINDS = [
  'free',
  'promo',
  'plan',
  'enterprise',
  'purchased',
  'adjustment',
] as const satisfies GrantKind[]

export function grantCommand(): Command {
  return new Command('grant')
    .description('credits of an account: issue, revoke, list')
    .addCommand(issue())
    .addCommand(revoke())
    .addCommand(list())
}

interface Issue {
  readonly kind: GrantKind
  readonly id?: string
  readonly priority?: number
  readonly starts?: number
  readonly expires?: number
  readonly feature?: readonly string[]
  readonly subject?: Record<string, string>
  readonly reason?: string
  readonly json?: true
}

function issue(): Command {
  const command = new Command('issue')
    .description('give credits to an account')
    .argument('<account>', 'who gets them')
    .argument('<amount>', 'how many CU: a decimal with at most six places')
    .addOption(new Option('--kind <kind>', 'what they are').choices(KINDS).makeOptionMandatory())
    .option('--id <id>', 'the id of the grant: with it, trying again changes nothing (default: a new one)')
    .addOption(new Option('--priority <number>', 'lower is burnt first').argParser(whole(0, 1_000_000)))
    .addOption(new Option('--starts <instant>', 'not before (default: now)').argParser(instant))
    .addOption(new Option('--expires <instant>', 'until; such as 2026-12-31 or +30d').argParser(instant))
    .addOption(new Option('--feature <features>', 'for these features only').argParser(words))
    .addOption(new Option('--subject <dimension=value>', 'for this subject only').argParser(pairs))
    .option('--reason <text>', 'stands in the books')
    .addHelpText(
      'after',
      `
Examples:
  sluice grant issue acme 500 --kind purchased --id invoice-2031
  sluice grant issue acme 25 --kind promo --expires +30d --feature sora.video`,
    )
    .action(async (account: string, amount: string, options: Issue, self: Command) => {
      const { kind, starts, expires, priority, feature, subject, reason } = options
      const request: GrantRequest = {
        id: options.id ?? `${kind}-${randomUUID()}`,
        kind,
        amount,
        ...(priority !== undefined && { priority }),
        ...(starts !== undefined && { starts_at: starts }),
        ...(expires !== undefined && { expires_at: expires }),
        ...(feature !== undefined && { features: feature }),
        ...(subject !== undefined && { subjects: subject }),
        ...(reason !== undefined && { reason }),
      }
      const grant = await withDesk(self, 'write', (desk) => desk.grant(account, request, OPERATOR))
      if (options.json) return printJson(grant)
      const known = grant.replayed ? ' (it was there already; nothing changed)' : ''
      const repaid = grant.repaid === '0' ? '' : `; ${grant.repaid} CU repaid debt`
      print(
        `${account} has grant ${grant.id}: ${grant.remaining} of ${grant.amount} CU left${repaid}${known}`,
      )
    })
  return actsOnState(command)
}

function revoke(): Command {
  const command = new Command('revoke')
    .description('take back what is left of a grant; what is held follows when its request ends')
    .argument('<account>', 'whose')
    .argument('<grant>', 'its id')
    .option('--reason <text>', 'stands in the books')
    .addHelpText('after', '\nExample:\n  sluice grant revoke acme promo-7 --reason "given by mistake"')
    .action(
      async (account: string, grant: string, options: { reason?: string; json?: true }, self: Command) => {
        const request = options.reason === undefined ? {} : { reason: options.reason }
        const view = await withDesk(self, 'write', (desk) =>
          desk.revokeGrant(account, grant, request, OPERATOR),
        )
        if (options.json) return printJson(view)
        print(`${account}: grant ${view.id} is ${view.status}; ${view.held} CU still held`)
      },
    )
  return actsOnState(command)
}

function list(): Command {
  const command = new Command('list')
    .description('list the grants of an account')
    .argument('<account>', 'whose')
    .addHelpText('after', '\nExample:\n  sluice grant list acme')
    .action(async (account: string, options: Listing & { json?: true }, self: Command) => {
      const found = await withDesk(self, 'read', (desk) =>
        collect(options, (page) => desk.grants(account, page)),
      )
      if (options.json) return printJson(found)
      print(grantTable(found.items))
      tellMore(found)
    })
  return actsOnState(listsPages(command))
}

/** Grants in the order they came, amounts in full. */
export function grantTable(grants: readonly GrantView[]): string {
  const right = (title: string) => ({ title, align: 'right' as const })
  return table(
    [
      'GRANT',
      'KIND',
      'STATUS',
      right('AMOUNT'),
      right('REMAINING'),
      right('HELD'),
      right('PRIORITY'),
      'EXPIRES',
      'ONLY FOR',
    ],
    grants.map((grant) => [
      grant.id,
      grant.kind,
      grant.status,
      grant.amount,
      grant.remaining,
      grant.held,
      grant.priority,
      instantText(grant.expires_at),
      scope(grant),
    ]),
  )
}

function scope({ features = [], subjects = {} }: GrantView): string {
  const named = Object.entries(subjects).map(([dimension, values]) => `${dimension}=${values.join('|')}`)
  return [...features, ...named].join(' ')
}
