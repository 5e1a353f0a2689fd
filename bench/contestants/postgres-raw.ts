/**
 * The comparator on PostgreSQL: the rows and bytes that Sluice writes for a pair, with the same statements into the same
 * tables and indexes, in shared commits. And nothing else: no rules, no hashes, no checks, no reads, no locks of its own.
 */
import { randomUUID } from 'node:crypto'
import { createEngine } from '../../src/engine.ts'
import { subjectKey } from '../../src/kernel/cells.ts'
import { type Connection, connect } from '../../src/store/postgres/connection.ts'
import * as rows from '../../src/store/postgres/rows.ts'
import { postgresStore } from '../../src/store/postgres/store.ts'
import { perform } from '../contestant.ts'
import { measurePairs } from '../pairs.ts'
import { type Pair, samplePairs } from '../sample.ts'
import { accountName, CALLERS, type Crowd, crowdOf, POLICY, reserveRequest } from '../workload.ts'
import { type Op, statementsOf } from './postgres-raw-rows.ts'

const SAMPLES = 64
/** Batches in flight, each on a connection of its own. One and four were no faster in most runs. */
const LANES = 2
const AT_ONCE = 1_000

interface Waiting extends Op {
  readonly done: () => void
  readonly failed: (error: unknown) => void
}

await perform(async ({ url, place, accounts }) => {
  const crowd = crowdOf(Number(accounts))
  const pairs = await samplePairs(crowd.accounts, SAMPLES)
  if (place === 0) await makeTables(String(url))
  const lanes = await Promise.all(Array.from({ length: LANES }, () => connect(String(url), 'raw')))
  if (place === 0) await fill(lanes[0] as Connection, crowd, pairs[0] as Pair)
  const commit = startCommits(lanes, Number(place))
  let count = 0

  async function pair(): Promise<void> {
    const { account, subject } = reserveRequest(crowd)
    const { reserve, settle } = pairs[count++ % SAMPLES] as Pair
    const same = { account, subject: subjectKey('user', String(subject?.user)), requestId: randomUUID() }
    await new Promise<void>((done, failed) =>
      commit({ ...same, written: reserve, opens: true, done, failed }),
    )
    await new Promise<void>((done, failed) =>
      commit({ ...same, written: settle, opens: false, done, failed }),
    )
  }
  return {
    run: (seconds) => measurePairs(seconds, pair),
    close: async () => void (await Promise.all(lanes.map((lane) => lane.end()))),
  }
})

/** The store makes its own. */
async function makeTables(url: string): Promise<void> {
  const engine = await createEngine({ store: postgresStore({ url }), policy: POLICY, sweeps: false })
  await engine.close()
}

/** Accounts and users as Sluice would have them. */
async function fill(db: Connection, { accounts, users }: Crowd, { settle }: Pair): Promise<void> {
  for (let from = 0; from < accounts; from += AT_ONCE) {
    const names = Array.from({ length: Math.min(AT_ONCE, accounts - from) }, (_, at) =>
      accountName(from + at),
    )
    await db.run(rows.SET_ACCOUNTS, [names, names.map(() => Date.now()), names.map(() => settle.account)])
    for (let user = 0; user < users; user++) {
      const key = subjectKey('user', `user-${String(user).padStart(4, '0')}`)
      await db.run(rows.SET_CELLS, [names, names.map(() => key), names.map(() => settle.subject)])
    }
  }
}

/** Every batch is one transaction, sent at once and answered in one round trip. */
function startCommits(lanes: readonly Connection[], place: number): (op: Waiting) => void {
  const free = [...lanes]
  const seqs = new Map<string, number>()
  let waiting: Waiting[] = []
  let turnComing = false

  /** The processes share accounts and divide their numbers, odd and even, so that they meet on the same pages. */
  function nextSeq(account: string): number {
    const next = (seqs.get(account) ?? place) + 2
    seqs.set(account, next)
    return next
  }
  function comeAround(): void {
    if (turnComing) return
    turnComing = true
    setImmediate(turn)
  }
  function turn(): void {
    turnComing = false
    if (waiting.length === 0) return
    const lane = free.pop()
    if (lane === undefined) return
    const batch = waiting.slice(0, CALLERS / LANES)
    waiting = waiting.slice(batch.length)
    write(lane, batch)
      .then(
        () => batch.forEach((op) => void op.done()),
        (error) => batch.forEach((op) => void op.failed(error)),
      )
      .then(() => {
        free.push(lane)
        comeAround()
      })
    comeAround()
  }
  async function write(lane: Connection, batch: readonly Op[]): Promise<void> {
    const begun = lane.exec('begin')
    const sent = statementsOf(batch, nextSeq).map(([statement, values]) => lane.run(statement, values))
    await Promise.all([begun, ...sent, lane.exec('commit')])
  }
  return (op) => {
    waiting.push(op)
    comeAround()
  }
}
