/** Forgetting a person: what names a subject leaves entries, requests, cells and the log; the chain stays whole. */
import { type Key, type RequestCell, requestKey, subjectKey } from '../kernel/cells.ts'
import { eraseSubject, type SubjectName } from '../kernel/forget.ts'
import { readPrivate } from '../ledger/entries.ts'
import type { Store } from '../store.ts'
import type { Caller } from './contract.ts'
import { type Core, contextOf } from './core.ts'

const PAGE = 500

export async function erase(
  core: Core,
  account: string,
  subject: SubjectName,
  caller: Caller,
): Promise<{ readonly entries: number }> {
  const { store } = core
  const context = contextOf(caller)
  const requestIds = await requestsOf(store, account, subject)
  const seqs = await entriesOf(store, account, subject)
  let entries = 0
  // One transaction may carry only so much; the last one tells of what is left, also when nothing is.
  do {
    const some = { requests: requestIds.splice(0, PAGE), seqs: seqs.splice(0, PAGE) }
    const op = { account, ...subject, seqs: some.seqs, requestIds: some.requests }
    const keys: Key[] = [
      'account',
      subjectKey(subject.dimension, subject.value),
      ...some.requests.map(requestKey),
    ]
    entries += (await core.run(account, keys, (cells, env) => eraseSubject(cells, env, context, op))).entries
  } while (requestIds.length > 0 || seqs.length > 0)
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
  }
}

async function entriesOf(
  store: Store,
  account: string,
  { dimension, value }: SubjectName,
): Promise<number[]> {
  const found: number[] = []
  for (let from = 1; ; ) {
    const page = await store.entries(account, { from, limit: PAGE })
    for (const stored of page) {
      const person = readPrivate(stored)
      if (person?.subject[dimension] === value || person?.scope?.[dimension]?.includes(value) === true)
        found.push(stored.seq)
    }
    const last = page.at(-1)
    if (last === undefined || page.length < PAGE) return found
    from = last.seq + 1
  }
}
