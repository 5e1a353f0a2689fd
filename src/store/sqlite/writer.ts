import { Worker } from 'node:worker_threads'
import { SluiceError } from '../../errors.ts'
import { commitError, type Failure } from './failure.ts'
import type { Rows } from './rows.ts'
import type { OtherAsk, Reply, WorkerOptions } from './worker.ts'

type Distributed<T> = T extends unknown ? Omit<T, 'number'> : never
export type Asked = Distributed<OtherAsk>

/** The writing thread, as this thread sees it. */
export interface Writer {
  /**
   * Resolves when what was asked is done and on disk, with false where it was not done because it builds on what is no more
   * so; rejects with `CommitError`.
   */
  ask(asked: Asked): Promise<boolean>
  /**
   * As `ask`, for the rows of one batch. Batches that come while others are being written go together after them. Where one
   * fails, those behind it, which may build on it, fail as passed over, all in one turn: whoever tries one again knows that
   * none is on its way.
   */
  commit(rows: Rows): Promise<void>
  close(): Promise<void>
}

interface Pending {
  readonly commits: boolean
  readonly resolve: (done: boolean) => void
  readonly reject: (error: Error) => void
}

const ENDED: Failure = {
  outcome: 'unknown',
  message: 'The thread that writes has ended',
  remedy: 'Retry with the same id: the answer tells what was committed.',
}
const RESPAWN_MS = 500
/** What comes over is bound and gone: more room for it is only more memory. */
const HEAP = { maxYoungGenerationSizeMb: 12 }

/** Starts the thread; where it dies, what it was asked has an unknown outcome, and the next to ask starts another. */
export async function startWriter(options: WorkerOptions): Promise<Writer> {
  // The package carries JavaScript, the checkout TypeScript.
  const file = new URL(import.meta.url.endsWith('.ts') ? './worker.ts' : './worker.js', import.meta.url)
  const pending = new Map<number, Pending>()
  let worker: Worker | undefined
  let spawnedAt = Number.NEGATIVE_INFINITY
  let numbers = 0
  /** Rises by one where a commit has failed, here when everybody has been told. */
  let era = 0
  let commitsPending = 0
  /** Failures of this era, which are told together. */
  let failed: (() => void)[] = []
  let cause: unknown

  function spawn(): Worker {
    const spawned = new Worker(file, { workerData: options, resourceLimits: HEAP })
    spawnedAt = performance.now()
    era = 0
    spawned.on('message', (replies: readonly Reply[]) => replies.forEach(take))
    spawned.on('error', (error) => {
      cause = error
    })
    spawned.on('exit', () => {
      if (worker === spawned) worker = undefined
      for (const number of [...pending.keys()]) take({ number, failure: ENDED })
    })
    return spawned
  }

  function take({ number, failure, done }: Reply): void {
    const waiting = pending.get(number)
    if (waiting === undefined) return
    pending.delete(number)
    if (waiting.commits) commitsPending--
    if (failure === undefined) waiting.resolve(done ?? true)
    else if (waiting.commits) failed.push(() => waiting.reject(commitError(failure)))
    else waiting.reject(commitError(failure))
    if (failed.length > 0 && commitsPending === 0) tellFailed()
  }

  function tellFailed(): void {
    const telling = failed
    failed = []
    era++
    for (const tell of telling) tell()
  }

  function post(asking: Asked | { readonly what: 'commit'; readonly rows: Rows }): Promise<boolean> {
    return new Promise((resolve, reject) => {
      if (worker === undefined && performance.now() - spawnedAt < RESPAWN_MS) throw commitError(ENDED)
      worker ??= spawn()
      const number = ++numbers
      const commits = asking.what === 'commit'
      if (commits) commitsPending++
      pending.set(number, { commits, resolve, reject })
      worker.postMessage(commits ? { ...asking, number, era } : { ...asking, number })
    })
  }

  worker = spawn()
  await new Promise<boolean>((resolve, reject) => pending.set(0, { commits: false, resolve, reject })).catch(
    () => {
      throw new SluiceError('unavailable', `${options.path} cannot be written: ${String(cause)}`, { cause })
    },
  )
  return {
    ask: post,
    commit: async (rows) => void (await post({ what: 'commit', rows })),
    async close() {
      if (worker === undefined) return
      const ended = new Promise((resolve) => worker?.once('exit', resolve))
      await post({ what: 'close' })
      await ended
    },
  }
}
