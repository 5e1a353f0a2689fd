/** `sluice explain`: the whole story of a request, from its decision to each transfer, and back from any entry. */
import { Command } from 'commander'
import { SluiceError } from '../errors.ts'
import type { Reason } from '../kernel/reasons.ts'
import type { EntryView, Explanation } from '../wire.ts'
import { entryTable, limitTable } from './account-looks.ts'
import { usage } from './failure.ts'
import type { Desk } from './http.ts'
import { bold, facts, instantText, print, printJson, wrapped } from './output.ts'
import { PAGE } from './pages.ts'
import { actsOnState, withDesk } from './target.ts'

interface Options {
  readonly entry?: string
  readonly entries?: true
  readonly json?: true
}

export function explainCommand(): Command {
  const command = new Command('explain')
    .description('tell the whole story of a request')
    .argument('[account]', 'whose; or the request alone, which is then looked for in all accounts')
    .argument('[request]', 'its id')
    .option('--entry <account/number>', 'the request behind this entry')
    .option('--entries', 'show the entries below the story')
    .addHelpText(
      'after',
      `
It reads beside a running server.

Examples:
  sluice explain acme req-1
  sluice explain req-1 --url http://127.0.0.1:8787
  sluice explain --entry acme/17 --entries`,
    )
    .action(
      async (first: string | undefined, second: string | undefined, options: Options, self: Command) => {
        const stories = await withDesk(self, 'read', (desk) => find(desk, first, second, options.entry))
        if (options.json) return printJson(stories.length === 1 ? stories[0] : stories)
        print(stories.map((story) => explanationText(story, options.entries === true)).join('\n\n'))
      },
    )
  return actsOnState(command)
}

async function find(
  desk: Desk,
  first: string | undefined,
  second: string | undefined,
  entry: string | undefined,
): Promise<readonly Explanation[]> {
  if (entry !== undefined) {
    if (first !== undefined)
      throw usage('--entry names the request already', 'Leave out what else names one.')
    return [await behind(desk, entry)]
  }
  if (first === undefined)
    throw usage('No request was named', 'Give ACCOUNT REQUEST, or --entry ACCOUNT/NUMBER.')
  if (second !== undefined) return [await desk.explain(first, second)]
  const stories = await desk.explainAnywhere(first)
  if (stories.length > 0) return stories
  throw new SluiceError('request_unknown', `No account knows a request ${first}`, {
    remedy: 'Name the account too: refused requests are found only in theirs.',
  })
}

/** The request that an entry belongs to. */
async function behind(desk: Desk, id: string): Promise<Explanation> {
  const [, account = '', digits = ''] = /^(.+)\/([1-9]\d{0,14})$/.exec(id) ?? []
  if (account === '') throw usage(`${id} is not the id of an entry`, 'Give it as ACCOUNT/NUMBER.')
  const entry = await entryOf(desk, account, Number(digits))
  if (entry?.request !== undefined) return desk.explain(account, entry.request)
  throw new SluiceError(
    'not_found',
    entry === undefined ? `There is no entry ${id}` : `Entry ${id} is no request's`,
    {
      remedy: 'sluice account entries lists those that there are.',
    },
  )
}

async function entryOf(desk: Desk, account: string, seq: number): Promise<EntryView | undefined> {
  let cursor: string | null = null
  do {
    const page: { items: readonly EntryView[]; next: string | null } = await desk.entries(account, {
      limit: PAGE,
      ...(cursor !== null && { cursor }),
    })
    const found = page.items.find((entry) => entry.seq === seq)
    if (found !== undefined) return found
    cursor = page.next
  } while (cursor !== null)
  return undefined
}

/** A story as a support person reads it: what it is, what happened, what was refused and what would help. */
export function explanationText(story: Explanation, withEntries: boolean): string {
  const named = (values: Readonly<Record<string, string>> = {}): string | undefined =>
    Object.entries(values)
      .map(([name, value]) => `${name}=${value}`)
      .join(' ') || undefined
  const refused = story.state === 'none' && story.refusals.length > 0
  const parts = [
    `${bold(`Request ${story.request_id}`)} of account ${story.account}`,
    facts([
      ['State', refused ? 'refused' : story.state.replace('_', ', ')],
      ['Feature', story.feature],
      ['Subject', named(story.subject)],
      ['Attributes', named(story.attributes)],
      ['Charged', refused ? undefined : `${story.charged} CU`],
      ['Held', story.held === '0' ? undefined : `${story.held} CU until ${instantText(story.expires_at)}`],
    ]),
  ]
  if (story.story.length > 0) parts.push(story.story.map((line) => wrapped(line)).join('\n'))
  for (const refusal of story.refusals) parts.push(refusalText(refusal))
  if (withEntries && story.entries.length > 0) parts.push(entryTable(story.entries))
  return parts.join('\n\n')
}

/** What each reason of a refusal says, in the words of the reference page. */
export const SAYS: Readonly<Record<Exclude<Reason, 'granted' | 'granted_in_part'>, string>> = {
  released: 'the request was released before this reserve arrived',
  hold_closed: 'the hold has been settled, released, or has ended',
  account_suspended: 'the account is suspended: settle, release and record still work',
  account_closed: 'the account is closed',
  feature_not_allowed: 'the plan does not have this feature',
  subject_limit: 'the plan bounds how many values this dimension may have, and they are taken',
  too_large: 'a rate could never admit this much at once',
  rate_full: 'a rate has no room now',
  concurrency_full: 'too many holds are open',
  budget_spent: 'a budget has no room for all of it',
  in_debt: 'the account owes; only allowances pay until a grant repays it',
  allowance_spent:
    'an allowance has too little left, and what follows it in the waterfall could not cover the rest',
  credits_short: 'the grants have too little left',
  overage_spent: 'overage has too little left',
}

function refusalText({ at, count: times, feature, answer }: Explanation['refusals'][number]): string {
  const { outcome, reason, cost, retry_after_ms: retryMs, unblock = {}, limits } = answer
  const { wait_until: until, at_latest: atLatest, credits, at_most: atMost } = unblock
  const verdict =
    outcome === 'wait' && retryMs !== undefined ? `Told to wait ${(retryMs / 1000).toFixed(1)} s` : 'Refused'
  const why = (SAYS as Readonly<Record<string, string>>)[reason]
  const help = [
    ...(credits === undefined ? [] : [`with ${credits} CU more of credits`]),
    ...(until === undefined ? [] : [`${atLatest ? 'at the latest from' : 'from'} ${instantText(until)} on`]),
  ]
  const said = [
    `${instantText(at)}  ${verdict}: ${why === undefined ? reason : `${why} (${reason})`}.`,
    `It asked for ${cost} CU of ${feature}.`,
    ...(help.length === 0 ? [] : [`It would pass ${help.join(', ')}.`]),
    ...(atMost === undefined ? [] : [`A request of at most ${atMost} CU would have fitted.`]),
    ...(times > 1 ? [`${times - 1} more like it followed in that second.`] : []),
  ].join(' ')
  return [wrapped(said), ...(limits.length === 0 ? [] : [limitTable(limits)])].join('\n\n')
}
