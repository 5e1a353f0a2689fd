/**
 * The thread that writes. It takes one message at a time, so that commits happen in the order in which they were
 * posted, and answers each one after its transaction is on disk.
 */
import { DatabaseSync } from 'node:sqlite'
import { parentPort, workerData } from 'node:worker_threads'
import type { RefusalLine, UsageChange } from '../../store.ts'
import type { Millis } from '../../units.ts'
import { type Failure, failureOf } from './failure.ts'
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
}

/** What is asked of the thread; each is answered by a `Reply` of the same number. */
export type Ask = { readonly number: number } & (
  | { readonly what: 'commit'; readonly rows: Rows }
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
export interface Reply {
  readonly number: number
  readonly failure?: Failure
  /** False where what was asked was not done, because it builds on what is no more so. */
  readonly done?: boolean
}

const { path, maxRefusals, maxPages } = workerData as WorkerOptions
const port = parentPort
if (port === null) throw new Error('worker.ts runs as a worker thread')

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

function answer(ask: Ask): boolean {
  if (ask.what === 'commit') inTransaction(db, () => rows.write(ask.rows))
  else if (ask.what === 'usage') return keepUsage(ask.account, ask.revision, ask.change)
  else if (ask.what === 'refusals') refusals.add(ask.lines)
  else if (ask.what === 'eraseRefusals') refusals.erase(ask.account, ask.dimension, ask.value)
  else if (ask.what === 'rotate') rotate(db, rows, ask.instant, ask.now)
  else if (ask.what === 'probe') inTransaction(db, () => void probe.run(ask.now))
  else {
    log.close()
    db.close()
  }
  return true
}

port.on('message', (ask: Ask) => {
  let reply: Reply
  try {
    reply = { number: ask.number, done: answer(ask) }
  } catch (error) {
    reply = { number: ask.number, failure: failureOf(error, path) }
  }
  port.postMessage(reply)
  if (ask.what === 'close') port.close()
})
port.postMessage({ number: 0 } satisfies Reply)
