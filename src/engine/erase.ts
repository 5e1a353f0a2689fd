/** Forgetting a person: what names a subject leaves entries, requests, cells and the log; the chain stays whole. */
import { type Key, type RequestCell, requestKey, subjectKey } from '../kernel/cells.ts'
import { eraseSubject, type SubjectName } from '../kernel/forget.ts'
import { readPrivate } from '../ledger/entries.ts'
import type { Store } from '../store.ts'
import type { Caller } from './contract.ts'
import { type Core, contextOf } from './core.ts'
import { breathe } from './paging.ts'

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
  for (let pass = 0, from = 1; pass < MAX_PASSES; pass++) {
    const requestIds = await requestsOf(store, account, subject)
    const named = await entriesOf(store, account, subject, from)
    from = named.next
    const last = requestIds.length === 0 && named.seqs.length === 0
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
    if (last) break
  }
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
): Promise<{ readonly seqs: number[]; readonly next: number }> {
  const seqs: number[] = []
  for (let from = start; ; ) {
    const page = await store.entries(account, { from, limit: PAGE })
    for (const stored of page) {
      const person = readPrivate(stored)
      // A dimension may be called as what every object has: `constructor`.
      const scope = new Map(Object.entries(person?.scope ?? {}))
      if (person?.subject[dimension] === value || scope.get(dimension)?.includes(value) === true)
        seqs.push(stored.seq)
    }
    from = (page.at(-1)?.seq ?? from - 1) + 1
    if (page.length < PAGE) return { seqs, next: from }
    await breathe()
  }
}
