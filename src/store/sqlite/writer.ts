import { Worker } from 'node:worker_threads'
import { SluiceError } from '../../errors.ts'
import { commitError, type Failure } from './failure.ts'
import type { Rows } from './rows.ts'
import { together } from './together.ts'
import type { Ask, Reply, WorkerOptions } from './worker.ts'

type Distributed<T> = T extends unknown ? Omit<T, 'number'> : never
export type Asked = Distributed<Ask>

/** The writing thread, as this thread sees it. */
export interface Writer {
  /**
   * Resolves when what was asked is done and on disk, with false where it was not done because it builds on what is no more
   * so; rejects with `CommitError`.
   */
  ask(asked: Asked): Promise<boolean>
  /** As `ask`, for the rows of one batch. Batches that come while others are being written go together after them. */
  commit(rows: Rows): Promise<void>
  close(): Promise<void>
}

interface Pending {
  readonly resolve: (done: boolean) => void
  readonly reject: (error: Error) => void
}

const ENDED: Failure = {
  outcome: 'unknown',
  message: 'The thread that writes has ended',
  remedy: 'Retry with the same id: the answer tells what was committed.',
}
const RESPAWN_MS = 500

/** Starts the thread; where it dies, what it was asked has an unknown outcome, and the next to ask starts another. */
export async function startWriter(options: WorkerOptions, maxJoined?: number): Promise<Writer> {
  // The package carries JavaScript, the checkout TypeScript.
  const file = new URL(import.meta.url.endsWith('.ts') ? './worker.ts' : './worker.js', import.meta.url)
  const pending = new Map<number, Pending>()
  let worker: Worker | undefined
  let spawnedAt = Number.NEGATIVE_INFINITY
  let numbers = 0
  let cause: unknown

  function spawn(): Worker {
    const spawned = new Worker(file, { workerData: options })
    spawnedAt = performance.now()
    spawned.on('message', ({ number, failure, done }: Reply) => {
      const waiting = pending.get(number)
      pending.delete(number)
      if (failure === undefined) waiting?.resolve(done ?? true)
      else waiting?.reject(commitError(failure))
    })
    spawned.on('error', (error) => {
      cause = error
    })
    spawned.on('exit', () => {
      if (worker === spawned) worker = undefined
      for (const [number, waiting] of pending) {
        pending.delete(number)
        waiting.reject(commitError(ENDED))
      }
    })
    return spawned
  }

  function ask(asked: Asked): Promise<boolean> {
    return new Promise((resolve, reject) => {
      if (worker === undefined && performance.now() - spawnedAt < RESPAWN_MS) throw commitError(ENDED)
      worker ??= spawn()
      const number = ++numbers
      pending.set(number, { resolve, reject })
      worker.postMessage({ ...asked, number })
    })
  }

  /** A transaction waits for the disk as long for many batches as for one. */
  const commit = together(async (rows) => void (await ask({ what: 'commit', rows })), maxJoined)

  worker = spawn()
  await new Promise<boolean>((resolve, reject) => pending.set(0, { resolve, reject })).catch(() => {
    throw new SluiceError('unavailable', `${options.path} cannot be written: ${String(cause)}`, { cause })
  })
  return {
    ask,
    commit,
    async close() {
      if (worker === undefined) return
      const ended = new Promise((resolve) => worker?.once('exit', resolve))
      await ask({ what: 'close' })
      await ended
    },
  }
}
