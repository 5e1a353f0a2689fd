/** Requests: what is held for each, and the order of its story. */
import type { Millis } from '../../units.ts'
import type { ChangeEntry, DecisionEntry, Entry } from '../entries.ts'
import { cu, type Tell } from './findings.ts'
import { type Journal, type RequestTrace, remainingOf } from './journal.ts'

type OfRequest<E> = E & { readonly request: string }

/**
 * Finds the story an entry belongs to, or begins one. An entry of a request that points to nothing before it begins a new
 * story: its id had been forgotten, which can only be after the horizon and never while something is held.
 */
export function storyOf(
  journal: Journal,
  entry: OfRequest<Entry>,
  recordedAt: Millis,
  horizonMs: Millis | undefined,
  tell: Tell,
): RequestTrace {
  const { request, seq } = entry
  const known = journal.requests.get(request)
  const begins = entry.previous === undefined && entry.kind !== 'charge' && entry.kind !== 'balance'
  if (known !== undefined && !begins) return known
  if (known !== undefined && begins) checkSecondStory(entry, known, recordedAt, horizonMs, tell)
  if (known === undefined && !begins && (entry.previous ?? 0) >= journal.first)
    tell('missing', 'the entries before it in the story of its request are missing', { seq, request })
  const story: RequestTrace = {
    firstAt: recordedAt,
    last: 0,
    decision: null,
    hold: null,
    charge: null,
    closed: null,
    live: false,
  }
  if (known?.hold != null) endHold(journal, request, known, 'released')
  journal.requests.set(request, story)
  return story
}

function checkSecondStory(
  { seq, request }: OfRequest<Entry>,
  known: RequestTrace,
  recordedAt: Millis,
  horizonMs: Millis | undefined,
  tell: Tell,
): void {
  const early = horizonMs !== undefined && recordedAt - known.firstAt < horizonMs
  if (known.hold !== null)
    tell(
      'hold',
      `the request begins a second time while ${cu(known.hold.granted)} are held for the request`,
      {
        seq,
        request,
        amount: known.hold.granted,
      },
    )
  else if (early) {
    const amount = known.charge?.standing ?? 0
    tell(
      'charge',
      `the request begins a second time within the horizon, after ${cu(amount)} had been charged`,
      {
        seq,
        request,
        amount,
      },
    )
  }
}

/** A decision, a use, a closing or a refund points to the one before it; a charge to its use; a transfer to its charge. */
export function checkLink(story: RequestTrace, entry: OfRequest<Entry>, tell: Tell): void {
  const { seq, request, previous, kind } = entry
  if (kind === 'balance') return
  const before = kind === 'charge' && entry.refund === undefined ? entry.usage : story.last
  if (before !== 0 && previous !== before)
    tell(
      'chain',
      `the entry points back to ${previous ?? 'nothing'}, and the story of its request goes on from entry ${before}`,
      {
        seq,
        request,
      },
    )
  if (kind !== 'usage') story.last = seq
}

export function readDecision(
  journal: Journal,
  entry: OfRequest<DecisionEntry>,
  story: RequestTrace,
  tell: Tell,
): void {
  const { seq, request, granted, from, op } = entry
  const about = { seq, request, amount: granted }
  if (op === 'reserve') {
    if (story.decision !== null) tell('hold', 'the request is reserved a second time', about)
    story.decision = seq
  } else if (story.hold === null) {
    tell('hold', `${cu(granted)} are held by an extend, and no hold was open`, about)
  }
  endHold(journal, request, story, null)
  let sum = 0
  for (const [, amount] of from) sum += amount
  if (sum !== granted)
    tell('hold', `${cu(granted)} are granted and ${cu(sum)} held from its sources`, {
      ...about,
      amount: sum - granted,
    })
  story.hold = { granted, from, expiresAt: entry.expires_at }
  story.closed = null
  journal.open.add(request)
  for (const [source, amount] of from) holdFrom(journal, entry, source, amount, tell)
  checkLimits(entry, tell)
}

function holdFrom(
  journal: Journal,
  { seq, request }: OfRequest<DecisionEntry>,
  source: string,
  amount: number,
  tell: Tell,
): void {
  if (amount <= 0) tell('hold', `${cu(amount)} are held from ${source}`, { seq, request, amount })
  if (!source.startsWith('grant:')) return
  const grant = journal.grants.get(source.slice('grant:'.length))
  if (grant === undefined) {
    tell('hold', `${cu(amount)} are held from ${source}, which was never issued`, { seq, request, amount })
    return
  }
  grant.held += amount
  const left = remainingOf(grant)
  if (grant.held > left)
    tell('hold', `${cu(grant.held)} are held from ${source} in all, and ${cu(left)} are left of it`, {
      seq,
      request,
      amount: grant.held - left,
    })
}

/** No decision takes more than the limit in force; the lines are those that the answer showed. */
function checkLimits({ seq, request, limits }: OfRequest<DecisionEntry>, tell: Tell): void {
  for (const [kind, name, , unit, limit, used, held, , , took] of limits) {
    if (kind === 'rate' || took <= 0 || used + held <= limit) continue
    const say = (count: number): string => (unit === 'cu' ? cu(count) : `${count} ${unit}`)
    tell(
      'window',
      `${say(took)} are taken from ${name}, which then stands at ${say(used + held)} of ${say(limit)}`,
      {
        seq,
        request,
        amount: used + held - limit,
      },
    )
  }
}

/** What is held for a request is let go; `how` is the name of its end, null where it is only replaced. */
export function endHold(journal: Journal, request: string, story: RequestTrace, how: string | null): void {
  for (const [source, amount] of story.hold?.from ?? []) {
    const grant = source.startsWith('grant:') ? journal.grants.get(source.slice('grant:'.length)) : undefined
    if (grant !== undefined) grant.held -= amount
  }
  story.hold = null
  journal.open.delete(request)
  if (how !== null) story.closed = how
}

export function readClosing(
  journal: Journal,
  entry: OfRequest<ChangeEntry>,
  story: RequestTrace,
  tell: Tell,
): void {
  const { seq, request } = entry
  const { cause, returned } = entry.detail as { cause: string; returned: number }
  const held = story.hold?.granted ?? 0
  if (returned !== held)
    tell('hold', `the hold closes and gives back ${cu(returned)} of ${cu(held)} held`, {
      seq,
      request,
      amount: returned - held,
    })
  endHold(journal, request, story, cause)
}
