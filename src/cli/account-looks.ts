/** The parts of `sluice account` that only look: list, show, holds, subjects, usage, entries. */
import { Command, Option } from 'commander'
import type { AccountStatus, AccountView, EntryView, Limit, UsageRow } from '../wire.ts'
import { grantTable } from './grant.ts'
import { bold, facts, instantText, print, printJson, table } from './output.ts'
import { collect, type Listing, listsPages, tellMore } from './pages.ts'
import { instant, pairs, words } from './reading.ts'
import { actsOnState, withDesk } from './target.ts'

export function accountLooks(): readonly Command[] {
  return [list(), show(), holds(), subjects(), usageOf(), entries()]
}

const right = (title: string) => ({ title, align: 'right' as const })

interface ListOptions extends Listing {
  readonly q?: string
  readonly plan?: string
  readonly status?: AccountStatus
  readonly json?: true
}

function list(): Command {
  const command = new Command('list')
    .description('list accounts by id')
    .option('--q <text>', 'accounts whose id or metadata contain it')
    .option('--plan <plan>', 'on this plan')
    .addOption(new Option('--status <status>', 'in this state').choices(['active', 'suspended', 'closed']))
    .addHelpText('after', '\nExample:\n  sluice account list --plan plus')
    .action(async (options: ListOptions, self: Command) => {
      const { q, plan, status } = options
      const only = {
        ...(q !== undefined && { q }),
        ...(plan !== undefined && { plan }),
        ...(status !== undefined && { status }),
      }
      const found = await withDesk(self, 'read', (desk) =>
        collect(options, (page) => desk.accounts({ ...page, ...only })),
      )
      if (options.json) return printJson(found)
      print(
        table(
          [
            'ACCOUNT',
            'PLAN',
            'STATUS',
            right('CREDITS'),
            right('HELD'),
            right('DEBT'),
            right('OPEN'),
            'CREATED',
          ],
          found.items.map((account) => [
            account.id,
            account.plan,
            account.status,
            account.credits.available,
            account.credits.held,
            account.credits.debt,
            account.open_holds,
            instantText(account.created_at),
          ]),
        ),
      )
      tellMore(found)
    })
  return actsOnState(listsPages(command))
}

function show(): Command {
  const command = new Command('show')
    .description('show an account: credits, allowances, limits')
    .argument('<account>', 'its id')
    .addOption(
      new Option('--subject <dimension=value>', 'whose windows to show beside its own').argParser(pairs),
    )
    .addHelpText('after', '\nExample:\n  sluice account show acme --subject user=ada')
    .action(async (id: string, options: { subject?: Record<string, string>; json?: true }, self: Command) => {
      const account = await withDesk(self, 'read', (desk) => desk.account(id, options.subject))
      if (options.json) printJson(account)
      else print(accountText(account, options.subject !== undefined))
    })
  return actsOnState(command)
}

function accountText(account: AccountView, ofSubject: boolean): string {
  const { credits, allowances, overage, limits, overrides } = account
  const metadata = Object.entries(account.metadata).map(([name, value]) => `${name}=${value}`)
  const counted = [...limits, ...(overage === null ? [] : [overage])]
  const windows = allowances.flatMap(({ name, by, subject, windows: inside }) =>
    inside.map((window) => [
      `${name}/${window.name}`,
      whose(by, subject),
      window.limit,
      window.used,
      window.held,
      window.remaining,
      instantText(window.resets_at),
    ]),
  )
  const parts = [
    facts([
      ['Account', account.id],
      ['Plan', account.plan],
      ['Status', account.status],
      ['Time zone', account.time_zone],
      ['Anchor', instantText(account.anchor_at)],
      ['Metadata', metadata.join(' ') || undefined],
      ['Open holds', account.open_holds],
      ['Credits', `${credits.available} CU to spend, ${credits.held} held`],
      ['Debt', credits.debt === '0' ? undefined : `${credits.debt} CU`],
    ]),
  ]
  const numbers = [right('LIMIT'), right('USED'), right('HELD'), right('LEFT'), 'RESETS']
  if (windows.length > 0) parts.push(table(['ALLOWANCE', 'WHOSE', ...numbers], windows))
  if (credits.grants.length > 0) parts.push(grantTable(credits.grants))
  if (counted.length > 0) parts.push(limitTable(counted))
  if (overrides.length > 0) {
    const rows = overrides.map((one) => [
      one.name,
      whose(one.by, one.subject),
      one.limit,
      instantText(one.until_at),
      one.reason,
    ])
    parts.push(table(['EXCEPTION', 'WHOSE', right('LIMIT'), 'UNTIL', 'REASON'], rows))
  }
  if (!ofSubject)
    parts.push(
      `What is counted by user, team and so on: sluice account subjects ${account.id}, or --subject DIMENSION=VALUE.`,
    )
  return parts.join('\n\n')
}

const whose = (by: string | undefined, subject: string | undefined): string =>
  by === undefined ? 'the account' : `${by} ${subject ?? '(none named)'}`

/** Limits as the decision read them. */
export function limitTable(limits: readonly Limit[]): string {
  return table(
    ['LIMIT', 'KIND', 'WHOSE', right('OF'), right('USED'), right('HELD'), right('LEFT'), 'UNIT', 'RESETS'],
    limits.map((one) => [
      one.name,
      one.kind,
      whose(one.by, one.subject),
      one.limit,
      one.used,
      one.held,
      one.remaining,
      one.unit,
      instantText(one.resets_at),
    ]),
  )
}

function holds(): Command {
  const command = new Command('holds')
    .description('list what is held for requests that are open')
    .argument('<account>', 'whose')
    .addHelpText('after', '\nExample:\n  sluice account holds acme')
    .action(async (id: string, options: Listing & { json?: true }, self: Command) => {
      const found = await withDesk(self, 'read', (desk) => collect(options, (page) => desk.holds(id, page)))
      if (options.json) return printJson(found)
      print(
        table(
          ['REQUEST', 'FEATURE', 'SUBJECT', right('HELD'), 'FROM', 'SINCE', 'UNTIL'],
          found.items.map((hold) => [
            hold.request_id,
            hold.feature,
            Object.entries(hold.subject)
              .map(([dimension, value]) => `${dimension}=${value}`)
              .join(' '),
            hold.held,
            hold.from.map(({ source, amount }) => `${source} ${amount}`).join(', '),
            instantText(hold.reserved_at),
            instantText(hold.expires_at),
          ]),
        ),
      )
      tellMore(found)
    })
  return actsOnState(listsPages(command))
}

function subjects(): Command {
  const command = new Command('subjects')
    .description('list subjects that have live state, with their limits')
    .argument('<account>', 'whose')
    .addHelpText('after', '\nExample:\n  sluice account subjects acme')
    .action(async (id: string, options: Listing & { json?: true }, self: Command) => {
      const found = await withDesk(self, 'read', (desk) =>
        collect(options, (page) => desk.subjects(id, page)),
      )
      if (options.json) return printJson(found)
      for (const { dimension, value, limits } of found.items) {
        print(bold(`${dimension} ${value}`))
        print(limits.length === 0 ? 'no limits\n' : `${limitTable(limits)}\n`)
      }
      tellMore(found)
    })
  return actsOnState(listsPages(command))
}

interface UsageOptions {
  readonly from: number
  readonly to?: number
  readonly bucket?: string
  readonly groupBy?: readonly string[]
  readonly json?: true
}

function usageOf(): Command {
  const command = new Command('usage')
    .description('sum what was used and what it cost')
    .argument('<account>', 'whose')
    .addOption(
      new Option('--from <instant>', 'from, such as 2026-07-01').argParser(instant).makeOptionMandatory(),
    )
    .addOption(new Option('--to <instant>', 'to (default: now)').argParser(instant))
    .option('--bucket <length>', '15m, hour, day, week or month, in the zone of the account')
    .addOption(
      new Option('--group-by <names>', 'feature, endpoint, subject.user, attributes.model').argParser(words),
    )
    .addHelpText(
      'after',
      '\nExample:\n  sluice account usage acme --from 2026-07-01 --bucket day --group-by feature',
    )
    .action(
      async (id: string, { from, to = Date.now(), bucket, groupBy, json }: UsageOptions, self: Command) => {
        const query = {
          from,
          to,
          ...(bucket !== undefined && { bucket }),
          ...(groupBy !== undefined && { group_by: groupBy }),
        }
        const rows = await withDesk(self, 'read', (desk) => desk.usage(id, query))
        if (json) printJson(rows)
        else print(usageTable(rows, groupBy ?? []))
      },
    )
  return actsOnState(command)
}

function usageTable(rows: readonly UsageRow[], groups: readonly string[]): string {
  const listed = (amounts: Readonly<Record<string, string>>): string =>
    Object.entries(amounts)
      .map(([name, amount]) => `${name} ${amount}`)
      .join(', ')
  return table(
    [
      'FROM',
      ...groups.map((name) => name.toUpperCase()),
      right('REQUESTS'),
      right('CHARGED'),
      'QUANTITIES',
      'SOURCES',
    ],
    rows.map((row) => [
      instantText(row.start_at),
      ...groups.map((name) => row.group[name]),
      row.requests,
      row.charged,
      listed(row.quantities),
      listed(row.sources),
    ]),
  )
}

const ENTRY_KINDS = [
  'usage',
  'charge',
  'balance',
  'decision',
  'change',
] as const satisfies EntryView['kind'][]
interface EntryOptions extends Listing {
  readonly kind?: EntryView['kind']
  readonly newest?: true
  readonly json?: true
}

function entries(): Command {
  const command = new Command('entries')
    .description('list the entries of the books')
    .argument('<account>', 'whose')
    .addOption(new Option('--kind <kind>', 'of this kind alone').choices(ENTRY_KINDS))
    .option('--newest', 'the newest first')
    .addHelpText('after', '\nExample:\n  sluice account entries acme --kind charge --newest --limit 20')
    .action(async (id: string, options: EntryOptions, self: Command) => {
      const { kind, newest } = options
      const found = await withDesk(self, 'read', (desk) =>
        collect(options, (page) =>
          desk.entries(id, {
            ...page,
            ...(kind !== undefined && { kinds: [kind] }),
            ...(newest && { newestFirst: true }),
          }),
        ),
      )
      if (options.json) return printJson(found)
      print(entryTable(found.items))
      tellMore(found)
    })
  return actsOnState(listsPages(command))
}

/** Entries in one line each; `--json` has them whole. */
export function entryTable(list: readonly EntryView[]): string {
  return table(
    ['ENTRY', 'KIND', 'AT', 'ACTOR', 'REQUEST', 'SAYS'],
    list.map((entry) => [
      entry.id,
      entry.kind,
      instantText(entry.at),
      entry.actor,
      entry.request,
      short(JSON.stringify(entry.body)),
    ]),
  )
}

const short = (text: string): string => (text.length > 80 ? `${text.slice(0, 79)}…` : text)
