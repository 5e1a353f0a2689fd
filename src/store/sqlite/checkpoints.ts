/**
 * Checkpoints, in a thread of their own beside the one that writes: a commit then waits for the little that came meanwhile, not
 * for thousands of pages to be read, written and synced. They move pages of the log that stand whatever comes, so any
 * number of commits may come between; the log begins anew after one that found nothing left.
 */
import { DatabaseSync } from 'node:sqlite'
import { isMainThread, parentPort, Worker, workerData } from 'node:worker_threads'
import { WRITER_SETTINGS } from './schema.ts'

/**
 * Pages in the log from which on it is worth it, 192 MB of them. The more, the seldomer commits wait for the end of a checkpoint, and
 * a page that changes often is written to the file once; but a start after a crash reads them all.
 */
const FROM_PAGES = 48_000
/** Passes that a checkpoint makes beside the commits: each finds what came during the last. */
const PASSES = 2
/** What is few enough to be left to the writing thread. */
const FEW_PAGES = 400

/** It makes next to nothing. */
const HEAP = { maxYoungGenerationSizeMb: 2 }

const IDLE = 0
const RUNNING = 1

interface Log {
  readonly log: number
  readonly checkpointed: number
}

/** Watches the log that `db` writes. From twice `fromPages` on commits wait for the disk. */
export function watchLog(
  db: DatabaseSync,
  path: string,
  fromPages = FROM_PAGES,
): { written(): void; close(): Promise<void> } {
  const look = db.prepare('pragma wal_checkpoint(noop)')
  const checkpoint = db.prepare('pragma wal_checkpoint(passive)')
  const state = new Int32Array(new SharedArrayBuffer(4))
  let thread: Worker | undefined
  let begun = false
  let ownFrom = 2 * fromPages

  function begin(): void {
    begun = true
    Atomics.store(state, 0, RUNNING)
    if (thread === undefined) {
      thread = new Worker(new URL(import.meta.url), {
        workerData: { checkpoints: path, state },
        resourceLimits: HEAP,
      })
      thread.unref()
      thread
        .once('error', () => {})
        .once('exit', () => {
          thread = undefined
          Atomics.store(state, 0, IDLE)
        })
    }
    thread.postMessage(null)
  }

  /** What cannot be moved stays in the log, and is tried again: nothing is lost by it. */
  function ownCheckpoint(): void {
    try {
      checkpoint.get()
    } catch {}
  }
  /** A log that cannot be looked at now is looked at after the next commit. */
  function leftInLog(): number {
    try {
      const { log, checkpointed } = look.get() as unknown as Log
      return log - checkpointed
    } catch {
      return 0
    }
  }

  return {
    /** After each commit. */
    written() {
      const running = Atomics.load(state, 0) === RUNNING
      if (begun && !running) {
        begun = false
        ownFrom = 2 * fromPages
        return ownCheckpoint()
      }
      const left = leftInLog()
      if (!running && left >= fromPages) begin()
      // The disk cannot follow: from here on commits wait for it.
      if (left >= ownFrom) {
        ownFrom = left + fromPages
        ownCheckpoint()
      }
    },
    async close() {
      if (thread === undefined) return
      const ended = new Promise((resolve) => thread?.once('exit', resolve))
      thread.postMessage('close')
      await ended
    },
  }
}

function serve(path: string, state: Int32Array): void {
  const db = new DatabaseSync(path)
  db.exec(WRITER_SETTINGS)
  db.exec('pragma synchronous = full; pragma cache_size = -64')
  const look = db.prepare('pragma wal_checkpoint(noop)')
  const checkpoint = db.prepare('pragma wal_checkpoint(passive)')
  const left = (): number => {
    const { log, checkpointed } = look.get() as unknown as Log
    return log - checkpointed
  }
  parentPort?.on('message', (ask) => {
    if (ask === 'close') {
      db.close()
      parentPort?.close()
      return
    }
    try {
      for (let pass = 0; pass < PASSES && left() > FEW_PAGES; pass++) checkpoint.get()
    } catch {
      // As above: it is tried again.
    }
    Atomics.store(state, 0, IDLE)
  })
}

if (!isMainThread && workerData?.checkpoints !== undefined) serve(workerData.checkpoints, workerData.state)
