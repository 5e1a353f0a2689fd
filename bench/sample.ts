/** What Sluice writes for a pair: taken from the engine itself, so that the comparator writes the same. */
import { createEngine } from '../src/engine.ts'
import type { StoredEntry } from '../src/ledger/entries.ts'
import { memoryStore } from '../src/store/memory.ts'
import type { Done, Store } from '../src/store.ts'
import { createAccounts, crowdOf, POLICY, reserveRequest, settleRequest } from './workload.ts'

/** The texts of one operation's rows. */
export interface Written {
  readonly account: string
  /** Whether the account's row stands in the index of open holds' ends. */
  readonly due: boolean
  readonly subject: string
  readonly request: string
  readonly entries: readonly StoredEntry[]
}
export interface Pair {
  readonly reserve: Written
  readonly settle: Written
}

/** Pairs as they are written when all accounts and users are known already. */
export async function samplePairs(accounts: number, count: number): Promise<readonly Pair[]> {
  const written: Done<unknown>[] = []
  const engine = await createEngine({
    store: overheard(memoryStore(), written),
    policy: POLICY,
    sweeps: false,
  })
  const crowd = { ...crowdOf(accounts), accounts: Math.min(accounts, 8) }
  await createAccounts(engine, crowd.accounts)
  const pair = async (): Promise<Pair> => {
    const request = reserveRequest(crowd)
    written.length = 0
    await engine.reserve(request)
    await engine.settle(settleRequest(request))
    const [reserve, settle] = written
    if (reserve === undefined || settle === undefined) throw new Error('a pair wrote less than it should')
    return { reserve: textsOf(reserve), settle: textsOf(settle) }
  }
  // Enough for every user to have a cell, and for the numbers of entries to have the length they have in the contest.
  for (let i = 0; i < 2_000; i++) await pair()
  const pairs: Pair[] = []
  for (let i = 0; i < count; i++) pairs.push(await pair())
  await engine.close()
  return pairs
}

/** A store that also tells what each step that writes asked it to write. */
function overheard(store: Store, written: Done<unknown>[]): Store {
  return {
    ...store,
    transact: (account, keys, step, priority) => {
      const heard: typeof step = (cells, env) => {
        const answer = step(cells, env)
        if (!('need' in answer) && answer.writes.length > 0) written.push(answer)
        return answer
      }
      return store.transact(account, keys, heard, priority)
    },
  }
}

function textsOf({ writes, entries }: Done<unknown>): Written {
  const text = (prefix: string): string => {
    const found = writes.filter(({ key }) => key.startsWith(prefix))
    if (found.length !== 1) throw new Error(`${found.length} cells of ${prefix} are written, not one`)
    return JSON.stringify(found[0]?.cell)
  }
  if (writes.length !== 3) throw new Error(`${writes.length} cells are written, not three`)
  const account = text('account')
  return {
    account,
    due: !account.includes('"dueAt":null'),
    subject: text('subject:'),
    request: text('request:'),
    entries,
  }
}
