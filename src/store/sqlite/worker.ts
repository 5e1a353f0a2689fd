/**
 * The thread that writes. It does what it is asked in the order in which it was asked; commits that came while it wrote go
 * together in its next transaction, and are answered after that is on disk.
 */
import { DatabaseSync } from 'node:sqlite'
import { parentPort, receiveMessageOnPort, workerData } from 'node:worker_threads'
import type { RefusalLine, UsageChange } from '../../store.ts'
import type { Millis } from '../../units.ts'
import { watchLog } from './checkpoints.ts'
import { type Failure, failureOf } from './failure.ts'
import { PASSED_OVER, writeJoined } from './joined.ts'
import { keepRefusals } from './refusals.ts'
import { rotate } from './rotate.ts'
import { createRowWriter, type Rows } from './rows.ts'
import { inTransaction, WRITER_SETTINGS } from './schema.ts'
import { usageWriter } from './usage.ts'

export interface WorkerOptions {
  readonly path: string
  readonly maxRefusals: number
  /** Pages that the file may have; for tests of a full disk. */
  readonly maxPages: number | undefined
  /** How many commits one transaction takes. */
  readonly maxJoined: number
}

/** A batch. Those of an era build on each other: where one fails, the rest of its era are passed over. */
export interface CommitAsk {
  readonly number: number
  readonly what: 'commit'
  readonly era: number
  readonly rows: Rows
}
/** What is asked of the thread; each is answered by a `Reply` of the same number. */
export type OtherAsk = { readonly number: number } & (
  | { readonly what: 'refusals'; readonly lines: readonly RefusalLine[] }
  | {
      readonly what: 'eraseRefusals'
      readonly account: string
      readonly dimension: string
      readonly value: string
    }
  | {
      readonly what: 'usage'
      readonly account: string
      readonly revision: number
      readonly change: UsageChange
    }
  | { readonly what: 'rotate'; readonly instant: Millis; readonly now: Millis }
  | { readonly what: 'probe'; readonly now: Millis }
  | { readonly what: 'close' }
)
export type Ask = CommitAsk | OtherAsk
export interface Reply {
  readonly number: number
  readonly failure?: Failure
  /** False where what was asked was not done, because it builds on what is no more so. */
  readonly done?: boolean
}

const { path, maxRefusals, maxPages, maxJoined } = workerData as WorkerOptions
if (parentPort === null) throw new Error('worker.ts runs as a worker thread')
const port = parentPort

function connect(synchronous: 'full' | 'normal'): DatabaseSync {
  const opened = new DatabaseSync(path)
  opened.exec(WRITER_SETTINGS)
  opened.exec(`pragma synchronous = ${synchronous}`)
  if (maxPages !== undefined) opened.exec(`pragma max_page_count = ${maxPages}`)
  return opened
}

const db = connect('full')
// Refusals may be lost in a crash: a connection of their own commits them without a sync.
const log = connect('normal')
const rows = createRowWriter(db)
const refusals = keepRefusals(log, db, maxRefusals)
const keepUsage = usageWriter(db)
const probe = db.prepare('insert or replace into probe (id, at) values (1, ?)')
const checkpoints = watchLog(db, path)
/** Rises by one where a commit has failed. */
let era = 0

function commit(asks: readonly CommitAsk[]): Reply[] {
  if (asks[0]?.era !== era) return asks.map(({ number }) => ({ number, failure: PASSED_OVER }))
  const outcomes = writeJoined(
    asks.map((ask) => ask.rows),
    (joined) => inTransaction(db, () => rows.write(joined)),
    (error) => failureOf(error, path),
  )
  if (outcomes.some((failure) => failure !== undefined)) era++
  return asks.map(({ number }, place) => {
    const failure = outcomes[place]
    return failure === undefined ? { number } : { number, failure }
  })
}

function answer(ask: Exclude<OtherAsk, { what: 'close' }>): Reply {
  const { number } = ask
  try {
    if (ask.what === 'usage') return { number, done: keepUsage(ask.account, ask.revision, ask.change) }
    if (ask.what === 'refusals') refusals.add(ask.lines)
    else if (ask.what === 'eraseRefusals') refusals.erase(ask.account, ask.dimension, ask.value)
    else if (ask.what === 'rotate') rotate(db, rows, ask.instant, ask.now)
    else inTransaction(db, () => void probe.run(ask.now))
    return { number }
  } catch (error) {
    return { number, failure: failureOf(error, path) }
  }
}

async function close(number: number): Promise<void> {
  await checkpoints.close()
  log.close()
  // The last connection moves what is in the log into the file.
  db.close()
  port.postMessage([{ number }])
  port.close()
}

function work(first: Ask): void {
  const waiting: Ask[] = [first]
  for (;;) {
    for (let more = receiveMessageOnPort(port); more !== undefined; more = receiveMessageOnPort(port))
      waiting.push(more.message as Ask)
    const next = waiting[0]
    if (next === undefined) return
    if (next.what === 'commit') {
      const others = waiting.findIndex((ask) => ask.what !== 'commit' || ask.era !== next.era)
      const most = Math.min(maxJoined, others < 0 ? waiting.length : others)
      port.postMessage(commit(waiting.splice(0, most) as CommitAsk[]))
      checkpoints.written()
    } else {
      waiting.shift()
      if (next.what === 'close') return void close(next.number)
      port.postMessage([answer(next)])
    }
  }
}

port.on('message', work)
port.postMessage([{ number: 0 }] satisfies Reply[])
