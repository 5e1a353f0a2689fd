/** Forgetting a person: what names a subject leaves entries, requests, cells and the log; the chain stays whole. */
import { type Key, type RequestCell, requestKey, subjectKey } from '../kernel/cells.ts'
import { eraseSubject, type SubjectName } from '../kernel/forget.ts'
import { readEntry, readPrivate } from '../ledger/entries.ts'
import type { Store } from '../store.ts'
import type { Millis } from '../units.ts'
import type { Caller } from './contract.ts'
import { type Core, contextOf } from './core.ts'
import { breathe } from './paging.ts'
import { foldUsage } from './usage/fold.ts'
import { loosen, refold } from './usage/forget.ts'
import { QUARTER_MS, startOf } from './usage/sums.ts'

const PAGE = 500

/** How often what was written meanwhile is looked for; someone who goes on acting is never quite forgotten. */
const MAX_PASSES = 8

export async function erase(
  core: Core,
  account: string,
  subject: SubjectName,
  caller: Caller,
): Promise<{ readonly entries: number }> {
  const { store } = core
  const context = contextOf(caller)
  let entries = 0
  const quarters = new Set<Millis>()
  const pass = async (from: number): Promise<{ readonly next: number; readonly last: boolean }> => {
    const requestIds = await requestsOf(store, account, subject)
    const named = await entriesOf(store, account, subject, from)
    const last = requestIds.length === 0 && named.seqs.length === 0
    if (named.quarters.size > 0) {
      // Totals count these entries now, and nobody counts them later as they still are.
      await foldUsage(core, account)
      await loosen(store, account, named.quarters)
      for (const at of named.quarters) quarters.add(at)
    }
    // One transaction may carry only so much; the last pass finds nothing, and drops a cell that counts for no one.
    do {
      const some = { requests: requestIds.splice(0, PAGE), seqs: named.seqs.splice(0, PAGE) }
      const op = { account, ...subject, seqs: some.seqs, requestIds: some.requests }
      const keys: Key[] = [
        'account',
        subjectKey(subject.dimension, subject.value),
        ...some.requests.map(requestKey),
      ]
      entries += (await core.run(account, keys, (cells, env) => eraseSubject(cells, env, context, op)))
        .entries
    } while (requestIds.length > 0 || named.seqs.length > 0)
    return { next: named.next, last }
  }
  try {
    for (let n = 0, from = 1; n < MAX_PASSES; n++) {
      const { next, last } = await pass(from)
      from = next
      if (last) break
    }
  } catch (error) {
    // A request that is still open refuses it: totals are told apart again as they were.
    await refold(core, account, subject, quarters).catch(() => {})
    throw error
  }
  await refold(core, account, subject, quarters)
  await store.eraseRefusals(account, subject.dimension, subject.value)
  return { entries }
}

async function requestsOf(
  store: Store,
  account: string,
  { dimension, value }: SubjectName,
): Promise<string[]> {
  const found: string[] = []
  for (let after: string | undefined; ; ) {
    const page = await store.cells(account, 'request:', {
      limit: PAGE,
      ...(after === undefined ? {} : { after }),
    })
    for (const { cell } of page) {
      const request = cell as RequestCell
      if (request.subject[dimension] === value) found.push(request.id)
    }
    const last = page.at(-1)
    if (last === undefined || page.length < PAGE) return found
    after = last.key
    await breathe()
  }
}

async function entriesOf(
  store: Store,
  account: string,
  { dimension, value }: SubjectName,
  start: number,
): Promise<{ readonly seqs: number[]; readonly quarters: ReadonlySet<Millis>; readonly next: number }> {
  const seqs: number[] = []
  const quarters = new Set<Millis>()
  for (let from = start; ; ) {
    const page = await store.entries(account, { from, limit: PAGE })
    for (const stored of page) {
      const person = readPrivate(stored)
      // A dimension may be called as what every object has: `constructor`.
      const scope = new Map(Object.entries(person?.scope ?? {}))
      const acted = person?.subject[dimension] === value
      if (acted || scope.get(dimension)?.includes(value) === true) seqs.push(stored.seq)
      if (acted && stored.kind === 'usage') quarters.add(startOf(readEntry(stored).at, QUARTER_MS))
    }
    from = (page.at(-1)?.seq ?? from - 1) + 1
    if (page.length < PAGE) return { seqs, quarters, next: from }
    await breathe()
  }
}
