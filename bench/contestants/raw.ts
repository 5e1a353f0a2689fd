/**
 * The comparator: the rows and bytes that Sluice writes for a pair, on the same schema, in shared commits, through a
 * writing thread of its own. And nothing else: no rules, no hashes, no checks, no reads, no bounds, no fairness.
 */
import { join } from 'node:path'
import { DatabaseSync } from 'node:sqlite'
import { Worker } from 'node:worker_threads'
import { ENTRY_KINDS } from '../../src/ledger/entries.ts'
import { inTransaction, migrate, SLOTS, WRITER_SETTINGS } from '../../src/store/sqlite/schema.ts'
import { perform } from '../contestant.ts'
import { measurePairs } from '../pairs.ts'
import { type Pair, samplePairs, type Written } from '../sample.ts'
import { accountName, CALLERS, type Crowd, crowdOf, reserveRequest } from '../workload.ts'
import {
  NEW_ENTRY,
  NEW_REQUEST,
  type RawRows,
  SET_CELL,
  SET_CELL_DUE,
  SET_REQUEST,
  SUM,
} from './raw-writer.ts'

const SAMPLES = 64
/** Batches in flight: one is put together while the other is written. More and fewer were slower. */
const LANES = 2

/** One operation waiting for a commit. */
interface Op {
  readonly written: Written
  readonly account: number
  readonly subjectCell: number
  /** The row of its request, and the request's id where the row is new. */
  readonly request: number
  readonly requestId: string | undefined
  readonly done: () => void
}

await perform(async (settings) => {
  const path = join(String(settings.folder), 'raw.db')
  const crowd = crowdOf(Number(settings.accounts))
  const pairs = await samplePairs(crowd.accounts, SAMPLES)
  fill(path, crowd, pairs[0] as Pair)
  const { commit, close } = await startCommits(path, crowd.accounts)
  let requests = 0

  async function pair(): Promise<void> {
    const { request_id: requestId, account, subject } = reserveRequest(crowd)
    const { reserve, settle } = pairs[requests % SAMPLES] as Pair
    const number = 1 + Number(account.slice(-8))
    const subjectCell = number * SLOTS + 1 + Number(subject?.user?.slice(-4))
    const request = ++requests
    const same = { account: number, subjectCell, request }
    await new Promise<void>((done) => commit({ ...same, written: reserve, requestId, done }))
    await new Promise<void>((done) => commit({ ...same, written: settle, requestId: undefined, done }))
  }
  return { run: (seconds) => measurePairs(seconds, pair), close }
})

/** Accounts and users as Sluice would have them. */
function fill(path: string, { accounts, users }: Crowd, { settle }: Pair): void {
  const db = new DatabaseSync(path)
  db.exec(WRITER_SETTINGS)
  db.exec('pragma journal_mode = wal')
  migrate(db, Date.now())
  const account = db.prepare('insert into account (id, name) values (?, ?)')
  const cell = db.prepare('insert into cell (id, account, key, due_at, sum, body) values (?, ?, ?, ?, ?, ?)')
  inTransaction(db, () => {
    for (let id = 1; id <= accounts; id++) {
      account.run(id, accountName(id - 1))
      cell.run(id * SLOTS, id, null, Date.now(), SUM, settle.account)
      for (let user = 0; user < users; user++)
        cell.run(id * SLOTS + 1 + user, id, `subject:user=${user}`, null, SUM, settle.subject)
    }
  })
  db.close()
}

async function startCommits(path: string, accounts: number) {
  const worker = new Worker(new URL('./raw-writer.ts', import.meta.url), { workerData: { path } })
  const seqs = new Array<number>(accounts + 1).fill(0)
  const due = new Array<boolean>(accounts + 1).fill(true)
  const inFlight: (readonly Op[])[] = []
  let waiting: Op[] = []
  let turnComing = false

  function comeAround(): void {
    if (turnComing) return
    turnComing = true
    setImmediate(turn)
  }
  function turn(): void {
    turnComing = false
    if (inFlight.length === LANES || waiting.length === 0) return
    const batch = waiting.slice(0, CALLERS / LANES)
    waiting = waiting.slice(batch.length)
    inFlight.push(batch)
    worker.postMessage(rowsOf(batch))
    comeAround()
  }
  /** A cell that several operations of a batch replace is written once, as the last left it. */
  function rowsOf(batch: readonly Op[]): RawRows {
    const rows: RawRows = []
    const cells = new Map<number, string>()
    const owners = new Map<number, Written>()
    for (const { written, account, subjectCell, request, requestId } of batch) {
      owners.set(account, written)
      cells.set(subjectCell, written.subject)
      if (requestId === undefined) rows.push(SET_REQUEST, request, written.request)
      else rows.push(NEW_REQUEST, request, account, requestId, Date.now(), written.request)
      for (const entry of written.entries) {
        const seq = ++(seqs as [number])[account as 0]
        rows.push(
          NEW_ENTRY,
          account,
          seq,
          ENTRY_KINDS.indexOf(entry.kind),
          entry.body,
          entry.private,
          entry.hash,
        )
      }
    }
    for (const [id, body] of cells) rows.push(SET_CELL, id, body)
    for (const [account, written] of owners) {
      if (due[account] === written.due) rows.push(SET_CELL, account * SLOTS, written.account)
      else rows.push(SET_CELL_DUE, account * SLOTS, written.due ? Date.now() : null, written.account)
      due[account] = written.due
    }
    return rows
  }
  await new Promise((resolve) => worker.once('message', resolve))
  worker.on('message', () => {
    for (const op of inFlight.shift() ?? []) op.done()
    comeAround()
  })
  return {
    commit(op: Op): void {
      waiting.push(op)
      comeAround()
    },
    close: async () => void (await worker.terminate()),
  }
}
