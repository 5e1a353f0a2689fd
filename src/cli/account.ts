/** `sluice account`: who pays, on which plan, under which exceptions. */
import { Argument, Command, Option } from 'commander'
import type { AccountPatch, AccountRequest, AccountStatus, AccountView } from '../wire.ts'
import { accountLooks } from './account-looks.ts'
import { usage } from './failure.ts'
import { OPERATOR } from './http.ts'
import { instantText, print, printJson } from './output.ts'
import { instant, pairs, whole, words } from './reading.ts'
import { actsOnState, withDesk } from './target.ts'

export const STATUSES = ['active', 'suspended', 'closed'] as const satisfies AccountStatus[]

export function accountCommand(): Command {
  const command = new Command('account').description('accounts: look, create, change')
  for (const look of accountLooks()) command.addCommand(look)
  return command.addCommand(create()).addCommand(set()).addCommand(override()).addCommand(repair())
}

interface Create {
  readonly plan: string
  readonly timeZone?: string
  readonly anchor?: number
  readonly metadata?: Record<string, string>
  readonly json?: true
}

function create(): Command {
  const command = new Command('create')
    .description('create an account')
    .argument('<account>', 'its id')
    .requiredOption('--plan <plan>', 'a plan of the policy')
    .option(
      '--time-zone <zone>',
      'for windows that follow the calendar, such as Europe/Berlin (default: UTC)',
    )
    .addOption(
      new Option('--anchor <instant>', 'from where its periods count, such as 2026-01-31').argParser(instant),
    )
    .addOption(new Option('--metadata <name=value>', 'kept with it; may be repeated').argParser(pairs))
    .addHelpText(
      'after',
      `
Examples:
  sluice account create acme --plan plus
  sluice account create bo --plan pro --time-zone Europe/Berlin --anchor 2026-01-31`,
    )
    .action(async (id: string, { plan, timeZone, anchor, metadata, json }: Create, self: Command) => {
      const request: AccountRequest = {
        id,
        plan,
        ...(timeZone !== undefined && { time_zone: timeZone }),
        ...(anchor !== undefined && { anchor_at: anchor }),
        ...(metadata !== undefined && { metadata }),
      }
      const account = await withDesk(self, 'write', (desk) => desk.createAccount(request, OPERATOR))
      tell(account, json, `Account ${account.id} is on plan ${account.plan}, in ${account.time_zone}`)
    })
  return actsOnState(command)
}

interface Set {
  readonly plan?: string
  readonly status?: AccountStatus
  readonly timeZone?: string
  readonly metadata?: Record<string, string>
  readonly unset?: readonly string[]
  readonly ifRevision?: number
  readonly json?: true
}

function set(): Command {
  const command = new Command('set')
    .description('change plan, status, time zone or metadata of an account')
    .argument('<account>', 'its id')
    .option('--plan <plan>', 'from now on; nothing is prorated')
    .addOption(
      new Option('--status <status>', 'suspended refuses what is new and settles what is open').choices(
        STATUSES,
      ),
    )
    .option('--time-zone <zone>', 'takes effect when the present windows end')
    .addOption(new Option('--metadata <name=value>', 'kept with it; may be repeated').argParser(pairs))
    .addOption(new Option('--unset <names>', 'metadata to remove').argParser(words))
    .addOption(
      new Option('--if-revision <number>', 'only if nobody changed it since').argParser(
        whole(0, Number.MAX_SAFE_INTEGER),
      ),
    )
    .addHelpText(
      'after',
      '\nExamples:\n  sluice account set acme --plan pro\n  sluice account set bo --status suspended',
    )
    .action(async (id: string, options: Set, self: Command) => {
      const account = await withDesk(self, 'write', (desk) =>
        desk.patchAccount(id, patchOf(options), options.ifRevision, OPERATOR),
      )
      tell(
        account,
        options.json,
        `Account ${account.id} is ${account.status}, on plan ${account.plan}, in ${account.time_zone}`,
      )
    })
  return actsOnState(command)
}

function patchOf({ plan, status, timeZone, metadata, unset = [] }: Set): AccountPatch {
  const removed = Object.fromEntries(unset.map((name) => [name, null]))
  const patch: AccountPatch = {
    ...(plan !== undefined && { plan }),
    ...(status !== undefined && { status }),
    ...(timeZone !== undefined && { time_zone: timeZone }),
    ...((metadata !== undefined || unset.length > 0) && { metadata: { ...metadata, ...removed } }),
  }
  if (Object.keys(patch).length > 0) return patch
  throw usage('Nothing to change was named', 'Name --plan, --status, --time-zone, --metadata or --unset.')
}

interface Override {
  readonly reason: string
  readonly until?: number
  readonly subject?: Record<string, string>
  readonly ifRevision?: number
  readonly json?: true
}

function override(): Command {
  const command = new Command('override')
    .description('replace one limit of an account, or of one of its subjects')
    .argument('<account>', 'its id')
    .argument('<name>', 'a guard, ALLOWANCE/WINDOW, or overage')
    .addArgument(new Argument('<limit>', 'the new limit, or none to take the exception away'))
    .requiredOption('--reason <text>', 'stands in the books')
    .addOption(new Option('--until <instant>', 'until; such as 2026-12-31 or +7d').argParser(instant))
    .addOption(new Option('--subject <dimension=value>', 'for this subject alone').argParser(pairs))
    .addOption(
      new Option('--if-revision <number>', 'only if nobody changed it since').argParser(
        whole(0, Number.MAX_SAFE_INTEGER),
      ),
    )
    .addHelpText(
      'after',
      `
Examples:
  sluice account override acme tasks/5h 200 --until +7d --reason "launch week"
  sluice account override acme requests 120 --subject user=ada --reason "batch job"
  sluice account override acme tasks/5h none --reason "launch is over"`,
    )
    .action(async (id: string, name: string, limit: string, options: Override, self: Command) => {
      const { reason, until, subject, ifRevision, json } = options
      const one = {
        name,
        limit: limit === 'none' ? null : limit,
        ...(until !== undefined && { until_at: until }),
      }
      const request = { overrides: [one], reason, ...(subject !== undefined && { subject }) }
      const account = await withDesk(self, 'write', (desk) =>
        desk.overrideLimits(id, request, ifRevision, OPERATOR),
      )
      const ends = until === undefined ? '' : ` until ${instantText(until)}`
      tell(
        account,
        json,
        limit === 'none' ? `${id}: ${name} follows its plan again` : `${id}: ${name} is ${limit}${ends}`,
      )
    })
  return actsOnState(command)
}

function repair(): Command {
  const command = new Command('repair')
    .description('bring an account that has seen a later instant (clock_behind) back to now, with an entry')
    .argument('<account>', 'its id')
    .addHelpText('after', '\nExample:\n  sluice account repair acme --url http://127.0.0.1:8787')
    .action(async (id: string, { json }: { json?: true }, self: Command) => {
      const account = await withDesk(self, 'write', (desk) => desk.repairClock(id, OPERATOR))
      tell(account, json, `Account ${account.id} stands at the store's clock again`)
    })
  return actsOnState(command)
}

function tell(account: AccountView, json: true | undefined, sentence: string): void {
  if (json) printJson(account)
  else print(`${sentence} (revision ${account.revision})`)
}
