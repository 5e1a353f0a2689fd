/** The whole story of a request: its entries from the first decision to the last transfer, and what was refused before. */
import { isDeepStrictEqual } from 'node:util'
import { SluiceError } from '../errors.ts'
import { type RequestCell, requestKey, SYSTEM, type SystemCell } from '../kernel/cells.ts'
import { readEntry, readPrivate, type StoredEntry } from '../ledger/entries.ts'
import { tellStory } from '../ledger/story.ts'
import type { RefusalLine, Store } from '../store.ts'
import { formatMicros } from '../units.ts'
import type { DecisionAnswer, Explanation, Subject } from '../wire.ts'
import type { Core } from './core.ts'
import { breathe } from './paging.ts'
import { entryView } from './present.ts'

const PAGE = 500
/** The most transfers that one charge makes: every live grant, and its ending. */
const MAX_TRANSFERS = 600

/** `bound` is the subject that the caller stands for: refusals of others under the same id are not told. */
export async function explain(
  core: Core,
  account: string,
  requestId: string,
  bound: Subject = {},
): Promise<Explanation> {
  const { store } = core
  const key = requestKey(requestId)
  const request = await core.run(account, [key], (cells) => ({
    result: { ok: (cells.get(key) ?? undefined) as RequestCell | undefined },
    writes: [],
    entries: [],
  }))
  const entries =
    request === undefined ? await scan(store, account, requestId) : await walk(store, account, request)
  const refusals = (await store.refusals(account, { requestId, limit: 20 })).filter(({ subject }) =>
    Object.entries(bound).every(([dimension, value]) => subject[dimension] === value),
  )
  if (request === undefined && entries.length === 0 && refusals.length === 0) {
    const gone = await retainedBefore(store)
    throw new SluiceError(
      'request_unknown',
      gone === undefined
        ? `account ${account} has no request ${requestId}`
        : `account ${account} has no request ${requestId}; entries recorded before ${gone} were let go`,
      {
        path: '/request_id',
        remedy:
          'a refused reserve is kept only in the bounded log of refusals; the first of each second is whole there',
      },
    )
  }
  return {
    account,
    request_id: requestId,
    state: request?.state ?? 'none',
    ...(request === undefined || request.feature === ''
      ? askedBy(refusals)
      : { feature: request.feature, subject: request.subject, attributes: request.attributes }),
    held: formatMicros(request?.hold?.granted ?? 0),
    charged: formatMicros(request?.charge?.cost ?? 0),
    expires_at: request?.expiresAt ?? null,
    entries: entries.map((entry) => entryView(account, entry)),
    refusals: refusals.map((line) => ({
      at: line.at,
      reason: line.reason,
      count: line.count,
      ...(JSON.parse(line.answer) as { readonly feature: string; readonly answer: DecisionAnswer }),
    })),
    story: tellStory(entries.map((stored) => ({ entry: readEntry(stored), person: readPrivate(stored) }))),
  }
}

/** The instant before which entries may be gone, for people. */
async function retainedBefore(store: Store): Promise<string | undefined> {
  const [own] = await store.cells(SYSTEM, 'account', { limit: 1 })
  const { retainedBefore: before } = (own?.cell as SystemCell | undefined) ?? {}
  return before === undefined ? undefined : Temporal.Instant.fromEpochMilliseconds(before).toString()
}

/** Who was refused, where it was always the same: that is all that is kept of a request that was never admitted. */
function askedBy(refusals: readonly RefusalLine[]): { readonly subject?: Subject } {
  const [first, ...more] = refusals.map((line) => line.subject)
  if (first === undefined || more.some((other) => !isDeepStrictEqual(first, other))) return {}
  return Object.keys(first).length === 0 ? {} : { subject: first }
}

/** From the newest entry of the story back to its first, and the transfers that follow each. */
async function walk(store: Store, account: string, request: RequestCell): Promise<StoredEntry[]> {
  const story = new Map<number, StoredEntry>()
  for (let seq = request.seqs.last; seq !== undefined; ) {
    const [stored] = await store.entries(account, { from: seq, to: seq, limit: 1 })
    if (stored === undefined) break
    story.set(stored.seq, stored)
    if (stored.kind !== 'decision') {
      const after = await store.entries(account, {
        from: seq + 1,
        kinds: ['balance'],
        to: seq + MAX_TRANSFERS,
        limit: MAX_TRANSFERS,
      })
      for (const follower of after) {
        if (readEntry(follower).request !== request.id) break
        story.set(follower.seq, follower)
      }
    }
    seq = readEntry(stored).previous
  }
  return [...story.values()].sort((a, b) => a.seq - b.seq)
}

/** A request whose cell is past the horizon is still in the journal. */
async function scan(store: Store, account: string, requestId: string): Promise<StoredEntry[]> {
  const found: StoredEntry[] = []
  for (let from = 1; ; ) {
    const page = await store.entries(account, { from, limit: PAGE })
    // The text test spares parsing of what is plainly another request's.
    for (const stored of page)
      if (stored.body.includes(requestId) && readEntry(stored).request === requestId) found.push(stored)
    const last = page.at(-1)
    if (last === undefined || page.length < PAGE) return found
    from = last.seq + 1
    await breathe()
  }
}

export function accountUnknown(id: string): SluiceError {
  return new SluiceError('account_unknown', `there is no account ${id}`, {
    path: '/account',
    remedy: 'check the id; create it, or name a default_plan in the policy',
  })
}
