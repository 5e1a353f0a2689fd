/** Requests as they stand, and what is noted on them: for programs beside the engine whose work outlives a call. */
import { type Key, type RequestCell, requestKey } from '../kernel/cells.ts'
import { note as noteStep } from '../kernel/note.ts'
import type { Store } from '../store.ts'
import type { List, PageQuery } from '../wire.ts'
import type { RequestStanding } from './contract.ts'
import type { Core } from './core.ts'
import * as intake from './intake.ts'
import { listOf, pageOf } from './paging.ts'
import { requestStanding } from './present.ts'

const MAX_NOTE = 512
const HOLD_PAGE = 500

export async function request(
  core: Core,
  account: string,
  requestId: string,
): Promise<RequestStanding | undefined> {
  const id = intake.accountId(account, '/account')
  const key = requestKey(intake.id(requestId, '/request_id'))
  const cell = await core.run(id, [key], (cells) => ({
    result: { ok: (cells.get(key) ?? null) as RequestCell | null },
    writes: [],
    entries: [],
  }))
  return cell === null ? undefined : requestStanding(id, cell)
}

export async function requests(
  { store }: Core,
  account: string,
  query: PageQuery & { readonly prefix: string },
): Promise<List<RequestStanding>> {
  const { limit, after } = pageOf(query)
  const id = intake.accountId(account, '/account')
  const page = await store.cells(id, requestKey(intake.id(query.prefix, '/prefix')), {
    limit: limit + 1,
    ...(after === undefined ? {} : { after }),
  })
  return listOf(
    page,
    limit,
    ({ key }: { readonly key: Key }) => key,
    ({ cell }) => requestStanding(id, cell as RequestCell),
  )
}

export async function note(
  core: Core,
  account: string,
  requestId: string,
  text: string,
  before: string | undefined,
): Promise<RequestStanding> {
  const op = {
    account: intake.accountId(account, '/account'),
    requestId: intake.id(requestId, '/request_id'),
    note: intake.text(text, '/note', MAX_NOTE),
    before,
  }
  const cell = await core.run(op.account, [requestKey(op.requestId)], (cells) => noteStep(cells, op))
  return requestStanding(op.account, cell)
}

export async function openNotes({ store }: Core, query: PageQuery): Promise<List<RequestStanding>> {
  const { limit, after } = pageOf(query)
  const page = await store.accounts({ limit: limit + 1, ...(after === undefined ? {} : { after }) })
  const list = listOf(
    page,
    limit,
    ({ id }) => id,
    (cell) => cell,
  )
  const items: RequestStanding[] = []
  for (const { id, openHolds } of list.items) {
    if (openHolds === 0) continue
    const noted = await notedHolds(store, id, openHolds)
    items.push(...noted.map((cell) => requestStanding(id, cell)))
  }
  return { items, next: list.next }
}

async function notedHolds(store: Store, id: string, openHolds: number): Promise<RequestCell[]> {
  const noted = (page: readonly RequestCell[]) => page.filter((cell) => cell.note !== undefined)
  if (openHolds < HOLD_PAGE) return noted(await store.holds(id, HOLD_PAGE))
  // Of an account with very many, a page at a time is kept.
  return store.snapshot(id, async ({ holds }) => {
    const found: RequestCell[] = []
    for (let after: RequestCell | undefined; ; ) {
      const page = await holds(after, HOLD_PAGE)
      found.push(...noted(page))
      after = page.at(-1)
      if (page.length < HOLD_PAGE) return found
    }
  })
}
