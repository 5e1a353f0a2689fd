/** `sluice explain`: the whole story of a request, from its decision to each transfer, and back from any entry. */
import { Command } from 'commander'
import { SluiceError } from '../errors.ts'
import type { DecisionAnswer, EntryView, Explanation } from '../wire.ts'
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
  for (const { at, count, answer } of story.refusals) parts.push(refusalText(at, count, answer))
  if (withEntries && story.entries.length > 0) parts.push(entryTable(story.entries))
  return parts.join('\n\n')
}

function refusalText(at: number, times: number, answer: DecisionAnswer): string {
  const { outcome, reason, cost, retry_after_ms: retryMs, unblock = {}, limits } = answer
  const like = times > 1 ? ` (and ${times - 1} more like it in that second)` : ''
  const advice = [
    ...(unblock.wait_until === undefined
      ? []
      : [`waiting ${unblock.at_latest ? 'at the latest ' : ''}until ${instantText(unblock.wait_until)}`]),
    ...(unblock.credits === undefined ? [] : [`${unblock.credits} CU of credits`]),
  ]
  const smaller = unblock.at_most === undefined ? '' : ` A request of at most ${unblock.at_most} CU fits now.`
  const helps = advice.length === 0 ? '' : ` It would pass after ${advice.join(' and ')}.`
  const retry = outcome === 'wait' && retryMs !== undefined ? `, ${(retryMs / 1000).toFixed(1)} s later` : ''
  const said = `${instantText(at)}  ${outcome}${retry}: ${reason}${like}. It asked for ${cost} CU.${helps}${smaller}`
  return [wrapped(said), ...(limits.length === 0 ? [] : [limitTable(limits)])].join('\n\n')
}
